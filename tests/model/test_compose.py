from __future__ import annotations

from pathlib import Path

import pytest

from netlab.errors import TopologyError
from netlab.model.topology import Role
from netlab.model.yaml import load, loads
from netlab.units import ms


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "main.yaml"


def refused(path: Path, *settings: str) -> str:
    with pytest.raises(TopologyError) as caught:
        load(path, settings)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_an_included_file_stands_under_the_one_that_includes_it(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="include: base.yaml\nnodes: {h2: router, h3: }\nlinks: [h2-h3]\n",
        base="name: base\nnodes: [h1, h2]\nlinks: [h1-h2]\nsysctls: {net.ipv4.tcp_sack: 0}\n",
    )
    topology = load(main)
    assert [node.name for node in topology.nodes] == ["h1", "h2", "h3"]
    assert topology.node("h2").role is Role.ROUTER
    assert [link.name for link in topology.links] == ["h1-h2", "h2-h3"]
    assert topology.name == "base"
    assert topology.links[0].mark.file == str(tmp_path / "base.yaml")


def test_files_are_looked_for_beside_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    main = write(tmp_path, main="include: [deep/a.yaml]\nnodes: {h1: }\n")
    write(tmp_path / "deep", a="include: b.yaml\n", b="sysctls: {net.ipv4.tcp_sack: 0}\n")
    assert load(main).node("h1").sysctls == (("net.ipv4.tcp_sack", "0"),)


def test_a_problem_in_an_included_file_names_it(tmp_path: Path) -> None:
    main = write(tmp_path, main="include: base.yaml\nnodes: [h1]\n", base="lniks: []\na: [\n")
    assert "base.yaml:3:1: this is not YAML" in refused(main)
    write(tmp_path, base="\nlniks: []\n")
    assert "base.yaml:2:1: unknown key 'lniks'; did you mean 'links'?" in refused(main)


def test_what_cannot_be_included_is_told(tmp_path: Path) -> None:
    main = write(
        tmp_path, main="include: [a.yaml, b.yaml, 5, .]\nnodes: [h1]\n", a="include: main.yaml\n"
    )
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    text = refused(main)
    assert "a.yaml:1:10: included file 'main.yaml' includes itself" in text
    assert "main.yaml:1:19: included file 'b.yaml' does not exist" in text
    assert "main.yaml:1:27: 'include' must be the name of a file" in text
    assert "included file '.' is a directory" in text


VARIABLES = """
variables: { rtt: 20ms, mtu: 1400, who: h2 }
nodes: [h1, h2]
links:
  - ends: h1-${who}
    delay: ${rtt}
    mtu: ${mtu}
processes:
  p: { node: h1, command: [echo, "$${HOME} ${mtu}"] }
"""


def test_variables_are_filled_in_and_keep_their_type() -> None:
    topology = loads(VARIABLES)
    link = topology.links[0]
    assert (link.b.node, link.a.mtu, link.forward.delay) == ("h2", 1400, 20 * ms)
    assert topology.processes[0].command == ("echo", "${HOME} 1400")


def test_a_setting_replaces_a_variable_or_any_key() -> None:
    topology = loads(
        VARIABLES,
        settings=[
            "rtt=5ms",
            "nodes.1=h3",
            "who=h3",
            "sysctls.net.ipv4.tcp_sack=0",
            "defaults.nodes.role=router",
            "links.0.loss=1%",
        ],
    )
    link = topology.links[0]
    assert link.forward.delay == 5 * ms
    assert link.forward.loss == 0.01
    assert topology.node("h3").role is Role.ROUTER
    assert topology.node("h3").sysctls == (("net.ipv4.tcp_sack", "0"),)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rtt", "a setting is written NAME=VALUE"),
        ("=5", "a setting is written NAME=VALUE"),
        ("rtt=fast", "'delay' of .*: 'fast' is not a time"),
        ("links.7.delay=1ms", "'links' has 1 entries, from 0"),
        ("nodes.0.role=host", "'nodes.0' is not a mapping, so nothing can be set in it"),
        ("nodse.h1=host", "--set nodse.h1=host:1:1: unknown key 'nodse'"),
        ("rtt=[", "--set rtt=.* this is not YAML"),
        ("rtt=[1]", "variable 'rtt' must be a single value"),
    ],
)
def test_a_bad_setting_is_explained(setting: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        loads(VARIABLES, settings=[setting])


def test_an_unknown_variable_is_told_with_the_nearest() -> None:
    with pytest.raises(TopologyError, match=r"there is no variable 'rt'; did you mean 'rtt'\?"):
        loads("variables: {rtt: 1ms}\nname: '${rt}'\nnodes: [a]\n")
    with pytest.raises(TopologyError, match=r"for the text itself write \$\$\{HOME\}"):
        loads("variables: {rtt: 1ms}\nname: '${HOME}'\nnodes: [a]\n")


def test_without_variables_a_dollar_is_a_dollar() -> None:
    topology = loads("nodes: [a]\nprocesses: {p: {node: a, command: [echo, '${HOME}']}}\n")
    assert topology.processes[0].command[1] == "${HOME}"


def test_variables_cannot_explode() -> None:
    lines = ["  v0: xxxxxxxxxx"] + [f"  v{i}: ${{v{i - 1}}}${{v{i - 1}}}" for i in range(1, 60)]
    with pytest.raises(TopologyError, match="with its variables this text has"):
        loads("variables:\n" + "\n".join(lines) + "\nnodes: [a]\nname: ${v59}\n")
