"""A new lab: a folder that runs, passes its own checks, and whose planted fault is found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from netlab import resources
from netlab.errors import UsageError
from netlab.labs.lab import Lab

NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
PINNED = "pinned.yaml"
PARTS = ("guide.md", "lab.py", "topology.yaml")

GUIDE = """\
# {title}

What it is about, for somebody who has never seen it. This one sends some octets over one link.

    client ─────────── server
              wire

Time needed: 5 minutes. The rules are in RFC 9293.

## Predict

1. The client sends 1000 octets and closes. How many does the server receive?
   <!-- answer: {{{{ received }}}}; unit: octets -->
   <details><summary>Hint</summary>TCP loses nothing.</details>
2. Who closes first?
   - a. the client
   - b. the server
   <!-- answer: a -->

## Run

    netlab lab run {place}

By hand:

    netlab up {place}topology.yaml
    netlab exec server -- python3 -m netlab.agents.actor listen accept recv-eof close
    netlab exec client -- python3 -m netlab.agents.actor --address server connect send=1000 close
    netlab down {name}

## Compare

The server received {{{{ received }}}} octets: a FIN comes after the last of them, never before.

## Explain

* How does the server know that there is nothing more to come?
"""

PROGRAM = '''\
"""{title}.

The exercise is in guide.md.
"""

from __future__ import annotations

from netlab.labs import Evidence, Lab, Verdict, expect, option
from netlab.labs.scene import Ready, Stage, address, agent

PORT = 8080

lab = Lab(
    "{title}",
    variations={{"few": option(octets=10), "many": option(octets=1000)}},
    ladder="client:eth0",
)


@lab.scenario
def send_some(stage: Stage, *, octets: int = 10, sent: int = -1) -> None:
    """The client sends some octets (or, where that is a fault, `sent` of them) and closes."""
    to = address(stage.topology, "server")
    serve = agent("actor", "--address", to, "listen", "accept", "recv-eof", "close")
    count = octets if sent < 0 else sent
    talk = agent("actor", "--address", to, "connect", f"send={{count}}", "close")
    with (
        stage.capture("client:eth0", filter=f"tcp port {{PORT}}"),
        stage.node("server").spawn("serve", serve, ready=Ready.port(PORT)) as server,
    ):
        stage.node("client").run(talk)
        server.wait(10)


def received(seen: Evidence) -> int:
    """Return how many octets the server received."""
    return int(seen.step("server", "serve", "received")["bytes"])


@lab.check
def every_octet_arrives(each: Evidence) -> Verdict:
    """The server receives as many octets as the client was to send."""
    return expect(received(each), "B").equals(each.option("octets"))


@lab.figure
def figures(many: Evidence) -> dict[str, str]:
    """Return the figures of the guide."""
    return {{"received": f"{{received(many):,}}"}}


lab.fault(option(sent=5), on="few", breaks=every_octet_arrives, name="half of it is sent")
'''

TOPOLOGY = """\
#   client ─────────── server
#             wire
name: {name}
include: pinned.yaml

nodes: [client, server]

links:
  - name: wire
    ends: client-server
"""


def new(name: str, parent: Path, source: Lab | None = None) -> Path:
    """Make the folder of a lab in `parent`, as a copy of `source` or a small one; return it.

    A copy comes without the recording, which is of the other lab. UsageError for a name that is
    none, or is taken.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is no name for a lab", hint="use small letters, digits and single hyphens"
        )
    folder = parent / name
    if folder.exists():
        raise UsageError(f"{folder} exists")
    if not parent.is_dir():
        raise UsageError(f"there is no folder {parent}")
    folder.mkdir()
    shutil.copyfile(resources.labs() / PINNED, folder / PINNED)
    if source is None:
        title = name.replace("-", " ").capitalize()
        place = f"./{folder}/" if not folder.is_absolute() else f"{folder}/"
        texts = dict(zip(PARTS, (GUIDE, PROGRAM, TOPOLOGY), strict=True))
        for part, text in texts.items():
            filled = text.format(title=title, name=name, place=place)
            (folder / part).write_text(filled, encoding="utf-8")
    else:
        for path in source.folder.iterdir():
            if path.is_file():
                text = path.read_text(encoding="utf-8").replace(f"../{PINNED}", PINNED)
                text = re.sub(
                    rf"^name: {re.escape(source.name)}$", f"name: {name}", text, flags=re.M
                )
                (folder / path.name).write_text(text, encoding="utf-8")
    return folder
