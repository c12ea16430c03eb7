"""`link`, `sysctl`, `pingall` and the other words for `up`, `down` and `shell`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.cli.person import Person

pytestmark = pytest.mark.needs("netns", "userns", "ping")

PAIR = "topologies/two-hosts.yaml"


@pytest.fixture
def me() -> Iterator[Person]:
    person = Person((sys.executable, "-W", "error"), uid=os.geteuid())
    try:
        yield person
    finally:
        person.close()


def test_links_are_shown_set_down_and_up(me: Person) -> None:
    me.ok("deploy", PAIR)
    (told,) = json.loads(me.ok("link", "--json"))
    assert told["up"]
    name = told["link"]
    (told,) = json.loads(me.ok("link", name, "down", "--json"))
    assert not told["up"]
    assert "client:eth0 down" in me.ok("link", name)
    done = me.run("pingall", "--timeout", "100ms", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["answered"] == 0
    me.ok("link", name, "up")
    assert "2 of 2 answered" in me.run("pingall").stderr
    me.ok("link", name, "down", "--for", "50ms")
    me.ok("link", name, "flap", "--times", "2", "--down", "20ms", "--up", "20ms")
    assert me.run("pingall", "--family", "ipv6").returncode == 0
    assert "X" not in me.ok("pingall")
    assert "already" in me.run("up", PAIR).stderr
    assert me.ok("connect", "client", stdin="echo $NETLAB_NODE\n") == "client\n"
    assert me.run("destroy").stderr == "lab two-hosts is gone\n"


def test_sysctls_are_shown_and_set(me: Person) -> None:
    me.ok("up", PAIR)
    assert me.ok("sysctl", "client", "net.ipv4.tcp_sack") == "net.ipv4.tcp_sack = 1\n"
    told = json.loads(me.ok("sysctl", "client", "net/ipv4/tcp_sack=0", "--json"))
    assert told == {"net.ipv4.tcp_sack": "0"}
    assert me.ok("exec", "client", "cat", "/proc/sys/net/ipv4/tcp_sack") == "0\n"
    assert me.ok("sysctl", "server", "net.ipv4.tcp_sack") == "net.ipv4.tcp_sack = 1\n"
    assert "net.ipv4.tcp_sack = 0\n" in me.ok("sysctl", "client")
    assert "ip_forward = 1\n" in me.ok("sysctl", "client", "net.ipv4.ip_forward=1")
    # `apply` changes back what was set by hand.
    me.ok("apply", PAIR)
    assert me.ok("sysctl", "client", "net.ipv4.tcp_sack") == "net.ipv4.tcp_sack = 1\n"
    assert "is so" in me.run("apply", PAIR).stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("client", "net.ipv4.tcp_sac"), 2, "no sysctl 'net.ipv4.tcp_sac'; did you mean 'net.ipv4"),
        (("client", "kernel.hostname=x"), 2, "no 'kernel.hostname' of its own; only sysctls that"),
        (
            ("client", "net.ipv4.ip_default_ttl=900"),
            5,
            "net.ipv4.ip_default_ttl = 900 in node 'client'",
        ),
        (("clint", "net.ipv4.tcp_sack"), 2, "no node 'clint'; did you mean 'client'?"),
    ],
)
def test_a_sysctl_that_cannot_be_is_one_sentence(
    me: Person, words: tuple[str, ...], status: int, message: str
) -> None:
    me.ok("up", PAIR)
    done = me.run("sysctl", *words)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert message in done.stderr


def test_a_link_that_is_not_there_is_one_sentence(me: Person) -> None:
    me.ok("up", PAIR)
    for words, message in (
        (("clint-server", "down"), "no link or interface 'clint-server'; did you mean"),
        (("client-server", "up", "--for", "1s"), "--for goes with down"),
        (("client-server", "down", "--for", "never"), "--for: "),
    ):
        done = me.run("link", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
