"""The injector: what it builds is what it was asked for, and it works inside a lab alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netlab.agents import injector
from netlab.analysis import frames
from netlab.analysis.headers import decode
from netlab.engine.programs import python_agent
from netlab.engine.stage import open_stage
from tests.engine.conftest import Notebook
from tests.engine.networks import host_router_host

ENDS = ("--source", "10.0.0.1", "--destination", "10.0.0.2")


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    monkeypatch.setenv("NETLAB_STATE_DIR", str(tmp_path / "state"))
    return Notebook(tmp_path / "recording")


def test_it_refuses_the_namespace_it_was_told_of(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.write_text("")
    other.write_text("")
    told = {"NETLAB_MACHINE_NETNS": str(here.stat().st_ino)}
    reason = injector.own_namespace_reason(told, str(here), str(other))
    assert reason == "this is the network namespace netlab was started from"


def test_it_refuses_the_namespace_of_process_1(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("")
    same = tmp_path / "same"
    same.hardlink_to(here)
    told = {"NETLAB_MACHINE_NETNS": "1"}
    assert "process 1" in (injector.own_namespace_reason(told, str(here), str(same)) or "")
    assert "process 1" in (injector.own_namespace_reason({}, str(here), str(same)) or "")


def test_it_refuses_where_it_cannot_be_told(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("")
    assert injector.own_namespace_reason({}, str(here), str(tmp_path / "unreadable"))
    assert injector.own_namespace_reason({}, str(tmp_path / "none"), str(here))


def test_it_agrees_to_a_namespace_of_a_lab(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.write_text("")
    other.write_text("")
    assert injector.own_namespace_reason({}, str(here), str(other)) is None
    told = {"NETLAB_MACHINE_NETNS": "1"}
    assert injector.own_namespace_reason(told, str(here), str(tmp_path / "unreadable")) is None


def test_outside_a_lab_nothing_is_sent() -> None:
    argv = [sys.executable, "-I", "-S", injector.__file__, "send", *ENDS, "tcp", "--dport", "80"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert "it runs inside a lab only" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--count", "10001"], "packets"),
        (["--count", "0"], "packets"),
        (["--rate", "2000"], "a second"),
        (["--rate", "0"], "a second"),
        (["--interface", "eth0"], "go together"),
    ],
)
def test_bounds_are_kept(words: list[str], complaint: str) -> None:
    args = injector.parse(["send", *ENDS, *words, "tcp", "--dport", "80"])
    with pytest.raises(injector.RefusedError, match=complaint):
        injector.send(args)


def test_every_field_is_as_asked() -> None:
    words = ["--ttl", "7", "--ident", "99", "--no-df", "--ip-checksum", "bad", "tcp"]
    words += ["--sport", "5", "--dport", "6", "--seq", "4294967295", "--ack", "8"]
    words += ["--flags", "syn,ece", "--window", "9", "--option", "mss=1400", "--option", "wscale=3"]
    packet = decode(injector.build(injector.parse(["send", *ENDS, *words, "--data", "hi"])))
    ip, tcp = packet.header("IPv4"), packet.header("TCP")
    assert ip is not None
    assert tcp is not None
    assert [ip[n].value for n in ("TTL", "identification", "DF")] == [7, 99, 0]
    assert [tcp[n].value for n in ("source port", "destination port")] == [5, 6]
    assert [tcp[n].value for n in ("sequence number", "acknowledgment number")] == [2**32 - 1, 8]
    assert [f.name for f in tcp.fields if f.bits == 1 and f.value] == ["ECE", "SYN"]
    assert packet.payload == b"hi"
    assert [s.ok for s in packet.checksums] == [False, True]
    assert [o.name for o in packet.options("TCP")][:2] == ["maximum segment size", "window scale"]


def test_checksums_can_be_made_right() -> None:
    good = injector.ipv4(
        "10.0.0.1", "10.0.0.2", 6, injector.tcp("10.0.0.1", "10.0.0.2", sport=1, dport=2)
    )
    broken = good[:10] + b"\0\0" + good[12:36] + b"\0\0" + good[38:]
    assert injector.recompute(broken, ["ip", "tcp"]) == good
    assert injector.recompute(broken, ["ip"])[:20] == good[:20]


@pytest.mark.parametrize("text", ["mss=x", "what", "hex=zz", "hex=" + "01" * 41])
def test_bad_options_are_refused(text: str) -> None:
    with pytest.raises((injector.RefusedError, ValueError)):
        injector.tcp_options([text])


@pytest.mark.needs("netns")
@pytest.mark.parametrize("rootless", [None, True])
@pytest.mark.parametrize(
    ("source", "target"), [("10.0.1.77", "10.0.2.1"), ("fd00:1::77", "fd00:2::1")]
)
def test_a_forged_packet_arrives(
    notebook: Notebook, rootless: bool | None, source: str, target: str
) -> None:
    with open_stage(host_router_host(), notebook, rootless=rootless) as stage:
        capture = stage.capture("h2:eth0", filter="tcp")
        send = (*python_agent("injector"), "send", "--source", source, "--destination", target)
        stage.node("h1").run([*send, "tcp", "--dport", "80", "--checksum", "bad"])
        stage.until(lambda: capture.packets, timeout=60, what="the packet")
        capture.stop()
    path = notebook.path / "captures" / "h2.eth0.pcap"
    packet = next(frames.read(path)).packet
    found = packet.checksum("TCP")
    assert found is not None
    assert found.ok is False
    ip = packet.header("IPv4") or packet.header("IPv6")
    assert ip is not None
    assert ip["source"].text == source
