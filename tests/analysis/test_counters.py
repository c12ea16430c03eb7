"""The kernel's counters: three formats in, one table out."""

from __future__ import annotations

from netlab.analysis import counters

TEXT = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 12
Tcp: MaxConn InCsumErrors
Tcp: -1 3
TcpExt: SyncookiesSent PAWSEstab
TcpExt: 0 1
Ip6InReceives                   	7
Icmp6InPktTooBigs               	2
nonsense
"""


def test_three_formats() -> None:
    found = counters.parse(TEXT)
    assert found["Ip.InReceives"] == 12
    assert found["Tcp.MaxConn"] == -1
    assert found["TcpExt.PAWSEstab"] == 1
    assert found["Ip6.InReceives"] == 7
    assert found["Icmp6.InPktTooBigs"] == 2
    assert len(found) == 9


def test_what_is_rendered_is_read_back() -> None:
    found = counters.parse(TEXT)
    assert counters.parse(counters.render(found)) == found


def test_the_counters_of_this_kernel_are_read() -> None:
    with open("/proc/net/snmp") as file:  # noqa: PTH123
        found = counters.parse(file.read())
    assert found["Tcp.OutSegs"] >= 0
