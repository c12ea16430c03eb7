"""A pytest plugin: the machine is after the whole session what it was before, or the session fails.

Compared are, in the namespaces the session was started in: interfaces, addresses, routes, rules,
firewalls, every sysctl of the network that can be written, mounts, names under /run/netns, the
names and name servers in /etc, and whether a process that the session has started (they carry a
mark in their environment) is still alive. (Control groups are looked after by each test that has a
state directory of its own: whose an empty one is cannot be seen.) Others may use the machine at the
same time, so a difference counts when it is still there after some seconds.

What loading a kernel module adds, new settings and the fallback devices of tunnels, is not counted:
the kernel does that by itself, at the first use of a feature in any namespace. Nor is the mount of
/run/netns on itself, which the first `ip netns add` on a machine makes, for good.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

MARK = "NETLAB_TEST_SESSION"
PATIENCE = 20.0
# Devices that exist in every namespace once their module is loaded.
FALLBACK = frozenset(
    (
        *("tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0"),
        *("ip6_vti0", "ifb0", "ifb1", "dummy0", "bond0"),
    )
)
# Of an address, a route or a bridge: what changes while time passes.
FLEETING = frozenset(
    (
        *("valid_life_time", "preferred_life_time", "expires", "used", "stats64", "tentative"),
        *("hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "fdb_n_learned"),
        *("hold_timer", "message_age_timer", "forward_delay_timer"),
    )
)

Facts = dict[str, str]


def _json(*words: str) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return json.loads(done.stdout or "[]")


def _text(value: object) -> str:
    """One line that two equal values share, without what is fleeting."""

    def stable(given: dict[str, Any]) -> dict[str, Any]:
        return {key: inner for key, inner in given.items() if key not in FLEETING}

    kept = json.loads(json.dumps(value), object_hook=stable)
    return json.dumps(kept, sort_keys=True)


def links() -> Facts:
    """Interfaces with their addresses and settings."""
    return {
        f"interface {link['ifname']}": _text(link)
        for link in _json("-d", "address")
        if link and link["ifname"] not in FALLBACK
    }


def routes() -> Facts:
    """Routes of all tables and the rules that choose between them."""
    found: Facts = {}
    for version in ("-4", "-6"):
        for route in _json(version, "route", "show", "table", "all"):
            if route.get("dev") not in FALLBACK:
                found[f"route {version} {_text(route)}"] = ""
        for rule in _json(version, "rule"):
            found[f"rule {version} {_text(rule)}"] = ""
    return found


def firewalls() -> Facts:
    """Rules of nftables, and which tables iptables-legacy has."""
    found: Facts = {}
    try:
        done = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, check=False)
        found["nft ruleset"] = done.stdout.decode(errors="replace")
    except FileNotFoundError:
        pass
    for name in ("ip_tables_names", "ip6_tables_names"):
        path = Path("/proc/net", name)
        try:
            found[str(path)] = path.read_text()
        except OSError:
            found[str(path)] = ""
    return found


def sysctls() -> Facts:
    """Settings of the network that can be written, by their file."""
    found: Facts = {}
    for folder, _, files in os.walk("/proc/sys/net"):
        for name in files:
            path = Path(folder, name)
            try:
                if path.stat().st_mode & 0o200:
                    found[str(path)] = path.read_text(errors="replace")
            except OSError:
                continue  # it can only be written, or it went with its interface
    return found


def files() -> Facts:
    """Mounts, names of namespaces, and the names that programs look up."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = {f"mount {line.split()[4]}": line.partition(" - ")[2] for line in mounts}
    names = Path("/run/netns")
    found.pop(f"mount {names}", None)
    found |= {f"{names}/{path.name}": "" for path in (names.iterdir() if names.is_dir() else ())}
    for path in (Path("/etc/hosts"), Path("/etc/resolv.conf")):
        found[str(path)] = path.read_text() if path.exists() else "absent"
    return found


def processes() -> Facts:
    """Living processes that this session has started, this one and its parents left out."""
    mark = f"{MARK}={os.environ.get(MARK, '-')}\0".encode()
    mine, pid = {os.getpid()}, os.getppid()
    while pid > 1:
        mine.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    found: Facts = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) in mine:
            continue
        try:
            if mark in (folder / "environ").read_bytes():  # a zombie has none
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[f"process {folder.name}"] = b" ".join(words).decode(errors="replace")
        except OSError:
            continue
    return found


ASPECTS: tuple[Callable[[], Facts], ...] = (links, routes, firewalls, sysctls, files, processes)


def snapshot() -> list[Facts]:
    """Everything that is compared."""
    return [aspect() for aspect in ASPECTS]


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Say what came, went and changed; new settings come with modules."""
    found = [f"- {name}: {before[name]}" for name in before.keys() - after.keys()]
    for name in after.keys() - before.keys():
        if not name.startswith("/proc/sys/net/"):
            found.append(f"+ {name}: {after[name]}")
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            found.append(f"  {name}: {before[name].strip()} became {after[name].strip()}")
    return sorted(found)


class Guard:
    """Compares the machine before and after a session."""

    def __init__(self) -> None:
        os.environ[MARK] = uuid.uuid4().hex
        self.before = snapshot()
        self.found: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            self.found = [
                line
                for aspect, before in zip(ASPECTS, self.before, strict=True)
                for line in differences(before, aspect())
            ]
            if not self.found or time.monotonic() > end:
                break
            time.sleep(0.2)
        if self.found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.found:
            terminalreporter.section("the tests have changed this machine", red=True, bold=True)
            for line in self.found:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and not config.option.collectonly:  # no worker of xdist
        config.pluginmanager.register(Guard(), "netlab-host-guard")
