"""The text of `ss`, read back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.analysis import ss

SAMPLE = """\
State    Recv-Q Send-Q Local Address:Port  Peer Address:Port Process
LISTEN   0      1          127.0.0.1:8080       0.0.0.0:*     users:(("python 3",pid=7,fd=3))
\t skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d0) cubic cwnd:10
SYN-SENT 0      1           10.0.0.1:40000     10.0.0.2:8080  timer:(on,1.204ms,2)
\t skmem:(r0,rb87380,t0,tb16384,f0,w0,o0,bl0,d0) cubic rto:4000 cwnd:1 retrans:1/2
ESTAB    5      0   [2001:db8::1]:8080  [2001:db8::2]:40000 timer:(keepalive,1min59sec,0)
\t ts sack ecn cubic wscale:7,10 rto:204 rtt:0.029/0.014 \
send 3.5Mbps pacing_rate 258121113120bps/1000bps rwnd_limited:4ms(33.3%) novelty novelty2:(a b)
TIME-WAIT 0     0   fe80::1%eth0:80 [::ffff:10.0.0.2]:81 timer:(timewait,59sec,0)
"""


def test_each_kind_of_row_is_read() -> None:
    listener, sent, established, waiting = ss.parse(SAMPLE)
    assert listener.state == "LISTEN"
    assert (listener.recv_q, listener.send_q) == (0, 1)
    assert listener.local == ss.Endpoint("127.0.0.1", 8080)
    assert listener.peer == ss.Endpoint("0.0.0.0", None)
    assert listener.values["users"] == '(("python 3",pid=7,fd=3))'
    assert listener.congestion == "cubic"
    assert sent.timer == ss.Timer("on", pytest.approx(1.204e-3), 2)
    assert sent.skmem["rcvbuf"] == 87380
    assert sent.pair("retrans") == (1, 2)
    assert sent.number("rto") == 4.0
    assert established.local == ss.Endpoint("2001:db8::1", 8080)
    assert established.timer == ss.Timer("keepalive", 119.0, 0)
    assert established.flags == {"ts", "sack", "ecn"}
    assert established.pair("rtt") == (pytest.approx(29e-6), pytest.approx(14e-6))
    assert established.values["send"] == "3.5Mbps"
    assert established.values["pacing_rate"] == "258121113120bps/1000bps"
    assert established.number("cwnd") is None
    assert waiting.local == ss.Endpoint("fe80::1", 80, "eth0")
    assert waiting.peer.address == "::ffff:10.0.0.2"


def test_unknown_words_are_kept() -> None:
    assert ss.parse(SAMPLE)[2].unknown == ("novelty",)
    assert ss.parse(SAMPLE)[2].values["novelty2"] == "(a b)"


@pytest.mark.parametrize("text", ["", "\n\n", "State Recv-Q Send-Q Local Address:Port\n"])
def test_no_sockets_is_no_error(text: str) -> None:
    assert ss.parse(text) == ()


@pytest.mark.parametrize(
    "text", ["hello\n", "\tskmem:(r0)\n", "ESTAB 0 0 nonsense\n", "ESTAB 0 0 a:b c:d\n"]
)
def test_other_text_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1 |no peer|is not an address"):
        ss.parse(text)


@given(st.text())
def test_any_text_gives_sockets_or_a_value_error(text: str) -> None:
    try:
        ss.parse(text)
    except ValueError:
        return


WORD = st.text("abcxyz_", min_size=1, max_size=12)
ADDRESS = st.ip_addresses().map(str) | st.just("*")
ENDPOINT = st.builds(ss.Endpoint, ADDRESS, st.none() | st.integers(0, 65535))
TIMER = st.builds(
    ss.Timer,
    st.sampled_from(["on", "keepalive", "timewait", "persist"]),
    st.integers(0, 7_200_000).map(lambda value: value / 1e3),
    st.integers(0, 20),
)
KEYS = WORD.filter(lambda word: word not in {"timer", "skmem"} | ss.FLAGS)
SOCKET = st.builds(
    ss.Socket,
    state=st.sampled_from(["ESTAB", "SYN-SENT", "FIN-WAIT-2", "LISTEN"]),
    recv_q=st.integers(0, 2**31),
    send_q=st.integers(0, 2**31),
    local=ENDPOINT,
    peer=ENDPOINT,
    timer=st.none() | TIMER,
    congestion=st.none() | st.sampled_from(["cubic", "bbr", "reno"]),
    flags=st.frozensets(st.sampled_from(sorted(ss.FLAGS))),
    skmem=st.dictionaries(st.sampled_from(sorted(ss.SKMEM.values())), st.integers(0, 2**31)),
    values=st.dictionaries(KEYS, st.text("0123456789/.,", min_size=1, max_size=9)),
    unknown=st.lists(
        st.builds(str.__add__, st.sampled_from("0123456789"), st.text("0189abyz", max_size=6)),
        max_size=3,
    ).map(tuple),
)


@given(st.lists(SOCKET, max_size=4))
def test_what_is_rendered_reads_back(sockets: list[ss.Socket]) -> None:
    read = ss.parse(ss.render(sockets))
    assert [s.values for s in read] == [s.values for s in sockets]
    for got, want in zip(read, sockets, strict=True):
        assert (got.state, got.recv_q, got.send_q) == (want.state, want.recv_q, want.send_q)
        assert (got.local, got.peer, got.flags) == (want.local, want.peer, want.flags)
        assert (got.congestion, got.skmem, got.unknown) == (
            want.congestion,
            want.skmem,
            want.unknown,
        )
        if want.timer is not None:
            assert got.timer is not None
            assert got.timer.expires == pytest.approx(want.timer.expires, abs=1e-6)


@pytest.mark.needs("netns", "ss")
@pytest.mark.parametrize("options", ["-tanimo", "-tanimoHO", "-tanimope", "-tan"])
def test_the_real_ss_is_read_without_unknown_words(options: str) -> None:
    program = f"""
import socket, subprocess
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    a = socket.socket(family); a.bind((address, 8080)); a.listen(5)
    b = socket.create_connection((address, 8080)); c, _ = a.accept()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    b.sendall(b"x" * 1000); c.recv(50)
    globals()[address] = (a, b, c)
    d = socket.create_connection((address, 8080)); e, _ = a.accept(); d.close(); e.close()
subprocess.run(["ss", "{options}"], check=True)
"""
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    shell = 'ip link set lo up && exec "$@"'
    done = subprocess.run(
        ["unshare", *flags, "sh", "-c", shell, "sh", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    sockets = ss.parse(done.stdout)
    assert sorted(s.state for s in sockets) == ["ESTAB"] * 4 + ["LISTEN"] * 2 + ["TIME-WAIT"] * 2
    assert [s.unknown for s in sockets] == [()] * 8
    if "i" in options:
        senders = [s for s in sockets if s.state == "ESTAB" and s.values.get("bytes_sent")]
        assert {s.values["bytes_sent"] for s in senders} == {"1000"}
        assert all(s.congestion and s.skmem for s in senders)
        assert all(s.timer is not None for s in senders)
