"""A lab that contradicts itself is refused in one sentence, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netlab.errors import LabDefinitionError, UsageError
from netlab.labs import Evidence, Lab, Verdict, delay, discovery, expect, nat, option, sysctl, vary
from netlab.model.topology import Topology
from netlab.model.yaml import loads

TOPOLOGY = loads("name: t\nnodes: [a, b]\nlinks: [{name: wire, ends: a-b}]\n")


def made() -> Lab:
    lab = Lab("A lab", variations={"ipv4": vary(), "rtt-1ms": option(rtt=0.001)})

    @lab.scenario
    def play(stage: object, *, rtt: float = 0.0) -> None:
        """Nothing."""

    @lab.check
    def something_holds(each: Evidence) -> Verdict:
        """Something holds,
        always.

        More words.
        """
        return expect(1).equals(1)

    lab.fault(option(rtt=2.0), on="ipv4", breaks=something_holds)
    lab.folder = Path("/labs/made")
    return lab


def test_a_whole_lab_is_verified() -> None:
    lab = made()
    lab.verify()
    (check,) = lab.checks
    assert lab.name == "made"
    assert check.claim == "Something holds, always."
    assert check.variations == ("ipv4", "rtt-1ms")
    assert check.each
    (fault,) = lab.faults
    assert (fault.name, fault.breaks) == ("rtt=2.0", "something_holds")


def test_the_parameters_of_a_check_are_its_variations() -> None:
    lab = made()

    @lab.check
    def slower(rtt_1ms: Evidence, ipv4: Evidence) -> Verdict:
        """One is slower than the other."""
        return expect(1).equals(1)

    assert lab.checks[1].variations == ("rtt-1ms", "ipv4")
    assert not lab.checks[1].each
    assert slower.__name__ == "slower"


def check_with_a_misspelt_variation(lab: Lab) -> None:
    @lab.check
    def wrong(ipv5: Evidence) -> Verdict:
        """No."""
        return expect(1).equals(1)


def check_of_nothing(lab: Lab) -> None:
    @lab.check
    def wrong() -> Verdict:
        """No."""
        return expect(1).equals(1)


def check_on_an_unknown_variation(lab: Lab) -> None:
    @lab.check(on=("ipv6",))
    def wrong(each: Evidence) -> Verdict:
        """No."""
        return expect(1).equals(1)


def check_with_on_and_names(lab: Lab) -> None:
    @lab.check(on=("ipv4",))
    def wrong(ipv4: Evidence) -> Verdict:
        """No."""
        return expect(1).equals(1)


def second_check_of_a_name(lab: Lab) -> None:
    @lab.check
    def something_holds(each: Evidence) -> Verdict:
        """No."""
        return expect(1).equals(1)


def second_scenario(lab: Lab) -> None:
    @lab.scenario
    def again(stage: object) -> None:
        """No."""


def fault_of_no_check(lab: Lab) -> None:
    def unknown(each: Evidence) -> Verdict:
        return expect(1).equals(1)

    lab.fault(vary(), on="ipv4", breaks=unknown)


def fault_on_an_unknown_variation(lab: Lab) -> None:
    lab.fault(vary(), on="ipv6", breaks=lab.checks[0].judge)


def fault_with_an_unknown_option(lab: Lab) -> None:
    lab.fault(option(rt=1), on="ipv4", breaks=lab.checks[0].judge)


def check_without_a_fault(lab: Lab) -> None:
    @lab.check
    def lonely(each: Evidence) -> Verdict:
        """Nobody breaks me."""
        return expect(1).equals(1)


def check_without_a_claim(lab: Lab) -> None:
    @lab.check
    def silent(each: Evidence) -> Verdict:
        return expect(1).equals(1)


def figures_of_an_unknown_variation(lab: Lab) -> None:
    @lab.figure
    def figures(ipv6: Evidence) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        (check_with_a_misspelt_variation, "'ipv5'.* is no variation; did you mean 'ipv4'"),
        (check_of_nothing, "looks at no variation"),
        (check_on_an_unknown_variation, "'ipv6', which the lab does not have"),
        (check_with_on_and_names, "on= needs the parameter 'each'"),
        (second_check_of_a_name, "two checks are called 'something_holds'"),
        (second_scenario, "'again' is a second scenario"),
        (fault_of_no_check, "'unknown', which is no check"),
        (fault_on_an_unknown_variation, "'ipv6', which the lab does not have"),
        (fault_with_an_unknown_option, "no option 'rt'; did you mean 'rtt'"),
        (check_without_a_fault, "no fault breaks 'lonely'"),
        (check_without_a_claim, "'silent' has no docstring"),
        (figures_of_an_unknown_variation, "'ipv6', a parameter of 'figures'"),
    ],
)
def test_each_slip_is_named(slip: Callable[[Lab], None], says: str) -> None:
    lab = made()

    def slipped() -> None:
        slip(lab)
        lab.verify()

    with pytest.raises(LabDefinitionError, match=says):
        slipped()


def test_a_scenario_takes_keyword_options_with_defaults() -> None:
    lab = Lab("A lab")

    @lab.scenario
    def play(stage: object, rtt: float) -> None:
        """Nothing."""

    with pytest.raises(LabDefinitionError, match="keyword-only options with defaults"):
        lab.verify()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("syn_then_syn_ack_then_ack", "SYN then SYN-ACK then ACK"),
        ("the_client_waits_in_syn_sent", "The client waits in SYN-SENT"),
        ("the_mss_is_smaller", "The MSS is smaller"),
        ("fin_wait_2_ends_after_tcp_fin_timeout", "FIN-WAIT 2 ends after TCP FIN timeout"),
    ],
)
def test_the_name_of_a_check_reads_as_a_sentence(name: str, sentence: str) -> None:
    lab = Lab("A lab")

    def judge(each: Evidence) -> Verdict:
        """Holds."""
        return expect(1).equals(1)

    judge.__name__ = name
    lab.check(judge)
    assert lab.checks[0].sentence == sentence


def sysctls(topology: Topology, node: str) -> dict[str, str]:
    return dict(topology.node(node).sysctls)


def test_variations_change_a_copy() -> None:
    both = vary(sysctl("a", "net.ipv4.tcp_sack", 0), delay("wire", 0.05), rtt=0.1)
    changed = both.change(TOPOLOGY)
    assert sysctls(changed, "a")["net.ipv4.tcp_sack"] == "0"
    assert "net.ipv4.tcp_sack" not in sysctls(TOPOLOGY, "a")
    assert "net.ipv4.tcp_sack" not in sysctls(changed, "b")
    assert changed.link("wire").forward.delay == changed.link("wire").backward.delay == 0.05
    assert both.options == {"rtt": 0.1}
    assert both.summary == "net.ipv4.tcp_sack=0 on a, 50ms of delay each way on wire, rtt=0.1"
    twice = vary(sysctl("*", "net.ipv4.tcp_sack", 0), sysctl("a", "net.ipv4.tcp_sack", 1))
    assert sysctls(twice.change(TOPOLOGY), "a")["net.ipv4.tcp_sack"] == "1"
    assert sysctls(twice.change(TOPOLOGY), "b")["net.ipv4.tcp_sack"] == "0"


def test_a_variation_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(LabDefinitionError, match="node 'c', which the topology lacks"):
        sysctl("c", "net.ipv4.tcp_sack", 0).change(TOPOLOGY)
    with pytest.raises(LabDefinitionError, match="link 'a-b', which the topology lacks"):
        delay("a-b", 1).change(TOPOLOGY)


NAT = loads("nodes: {a: , gw: {role: nat, nat: {outside: gw-b}}, b: }\nlinks: [a-gw, gw-b]", "nat")


def test_a_nat_is_changed_in_its_own_words() -> None:
    both = vary(nat("gw", tcp_established="5s"), nat("gw", unsolicited="reset", tcp_loose=0))
    changed = both.change(NAT).node("gw").firewall.nat
    assert changed is not None
    assert changed.unsolicited == "reset"
    assert dict(changed.conntrack) == {
        "net.netfilter.nf_conntrack_tcp_timeout_established": "5",
        "net.netfilter.nf_conntrack_tcp_loose": "0",
    }
    assert both.summary == "tcp_established=5s on gw, unsolicited reset, tcp_loose=0 on gw"
    with pytest.raises(LabDefinitionError, match="'tcp_lose': unknown key; did you mean"):
        nat("gw", tcp_lose=0)
    with pytest.raises(LabDefinitionError, match="'a', no nat"):
        nat("a", tcp_loose=0).change(NAT)


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "lab.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "defines no `lab`"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("def f(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("from netlab.labs import Lab\nlab = Lab('x')\n", "has no scenario"),
        (
            "from netlab.labs import Lab\nlab = Lab('x')\n@lab.scenario\ndef s(stage): 'Play.'\n",
            "has no check",
        ),
    ],
)
def test_a_broken_program_is_a_sentence_with_its_file(tmp_path: Path, text: str, says: str) -> None:
    folder = write(tmp_path / "broken", text)
    with pytest.raises(LabDefinitionError, match=says) as caught:
        discovery.load(folder)
    assert str(folder / "lab.py") in str(caught.value)


def test_labs_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    shipped = discovery.names()
    assert "handshake" in shipped
    assert discovery.find("handshake").name == "handshake"
    folder = str(discovery.place() / "handshake")
    assert discovery.find(folder).title == discovery.find("handshake").title
    with pytest.raises(UsageError, match="did you mean 'handshake'"):
        discovery.find("handshaek")
    with pytest.raises(UsageError, match="no folder of labs"):
        discovery.names(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"it has no lab\.py"):
        discovery.find(str(tmp_path))


@pytest.mark.parametrize("name", discovery.names())
def test_each_lab_that_comes_with_netlab_is_whole(name: str) -> None:
    discovery.find(name)
