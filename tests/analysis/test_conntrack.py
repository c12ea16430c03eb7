"""Listings of tracked connections, by the tool and by the kernel's own file."""

from __future__ import annotations

from netlab.analysis.conntrack import Entry, Way, parse

TOOL = """\
tcp      6 4 ESTABLISHED src=10.0.0.1 dst=10.0.1.2 sport=40000 dport=8080 src=10.0.1.2 \
dst=10.0.1.1 sport=8080 dport=40000 [ASSURED] mark=0 use=1
tcp      6 119 SYN_SENT src=10.0.0.1 dst=10.0.1.2 sport=40001 dport=9 [UNREPLIED] src=10.0.1.2 \
dst=10.0.1.1 sport=9 dport=40001 mark=0 use=1
udp      17 29 src=10.0.0.1 dst=10.0.1.2 sport=5 dport=6 src=10.0.1.2 dst=10.0.1.1 sport=6 dport=5
conntrack v1.4.8 (conntrack-tools): 3 flow entries have been shown.
"""
ENTRIES = (
    Entry(
        "ESTABLISHED",
        4,
        Way("10.0.0.1", 40000, "10.0.1.2", 8080),
        Way("10.0.1.2", 8080, "10.0.1.1", 40000),
        frozenset({"ASSURED"}),
    ),
    Entry(
        "SYN_SENT",
        119,
        Way("10.0.0.1", 40001, "10.0.1.2", 9),
        Way("10.0.1.2", 9, "10.0.1.1", 40001),
        frozenset({"UNREPLIED"}),
    ),
)


def test_tcp_entries_are_read_and_the_rest_is_left_out() -> None:
    assert parse(TOOL) == ENTRIES


def test_the_file_of_the_kernel_says_the_same() -> None:
    lines = [f"ipv4     2 {line}" for line in TOOL.splitlines()[:2]]
    assert parse("\n".join(lines)) == ENTRIES


def test_what_is_torn_or_nothing_has_no_entry() -> None:
    assert parse("") == ()
    assert parse(TOOL.splitlines()[0][:60]) == ()
