"""`netlab capture`: packets of a running lab as they pass, to a pipe, a file or the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netlab.errors import DiskFullError, UsageError

if TYPE_CHECKING:
    from netlab.engine.live_capture import Outcome

WARNING, FAILURE = 3, 5
LONGEST_SNAP = 262_144


@click.command()
@click.option("--lab", "lab_name", metavar="NAME", help="The lab; needed when several run.")
@click.option("-w", "--write", "target", metavar="FILE", help="Write pcapng; - is standard output.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after so many packets.")
@click.option(
    "-s",
    "--snaplen",
    type=click.IntRange(1, LONGEST_SNAP),
    default=LONGEST_SNAP,
    help="Keep so many octets of each packet (all of them).",
)
@click.argument("where", nargs=-1, required=True, metavar="NODE[:IF]... [FILTER]...")
def capture(
    lab_name: str | None, target: str | None, count: int | None, snaplen: int, where: Sequence[str]
) -> int:
    r"""Show packets as they pass NODE:IF, several of them in order of time.

    A NODE alone is all its interfaces. FILTER is one of tcpdump, and knows the names of nodes.
    Without --write it prints a line for each packet. It ends at Ctrl-C, after --count packets,
    when the reader of its output has gone, or with the lab. Status 3: packets were dropped.

    \b
    netlab capture h1:eth0 r1:eth1 -w - | wireshark -k -i -
    netlab capture h1:eth0 tcp port 80
    netlab capture r1 -w r1.pcapng -c 1000
    """
    from netlab.engine import live_capture, state
    from netlab.engine.reach import connect

    if target == "-" and sys.stdout.isatty():
        raise UsageError(
            "-w - would write a capture to the terminal",
            hint="pipe it (`| wireshark -k -i -`), name a file, or leave -w out for lines of text",
        )
    lab = state.find(lab_name)
    wanted, expression = live_capture.places(lab, where)
    form = live_capture.Form(wanted)
    if target is not None:
        from importlib.metadata import version

        form = live_capture.PcapngForm(
            wanted,
            lab=lab.id,
            expression=expression,
            snaplen=snaplen,
            program=f"netlab {version('netlab-tcpip')}",
        )
    _, connection = connect(lab.id)
    with live_capture.LiveCapture(
        connection, wanted, form=form, expression=expression, count=count, snaplen=snaplen
    ) as running:
        out = 1 if target is None or target == "-" else _create(Path(target))
        try:
            with live_capture.interrupts() as asked:  # before we say that it can be ended
                click.echo(f"capturing at {', '.join(map(str, wanted))}", err=True)
                outcome = running.run(out, asked)
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            if out != 1:
                os.close(out)
    return _tell(outcome, lab.id)


def _create(path: Path) -> int:
    """Open a file for the calling user, empty; UsageError when that cannot be."""
    from netlab.recording.ownership import calling_user

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    owner = calling_user(os.environ, os.geteuid())
    if owner is not None:
        os.fchown(fd, *owner)
    return fd


def _unwritable(target: str | None, error: OSError) -> DiskFullError | UsageError:
    import errno

    name = "standard output" if target in (None, "-") else target
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFullError(f"no space left for {name}", hint="free some space")
    return UsageError(f"cannot write {name}: {error.strerror}")


def _tell(outcome: Outcome, lab: str) -> int:
    from netlab.engine.live_capture import End

    for failure in outcome.failures:
        click.echo(f"error: {failure}", err=True)
    if outcome.end is End.LAB:
        click.echo(f"the lab {lab} has ended", err=True)
    plural = "" if outcome.packets == 1 else "s"
    click.echo(f"{outcome.packets} packet{plural}", err=True)
    for place, counters in outcome.counters.items():
        lost = counters.dropped_by_kernel + counters.dropped_by_interface
        if lost:
            click.echo(f"warning: {lost} packets at {place} were dropped by the kernel", err=True)
    if outcome.failures:
        return FAILURE
    return WARNING if outcome.dropped else 0
