"""What every test may ask of the machine, and how a missing thing is reported.

`@pytest.mark.needs("root", "netem")` skips with the reason where the machine cannot, and fails
under `--require-privileged`, so that a CI run cannot skip silently. Probing is done by doing.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = ROOT.parent / "shared" / "captures"
"""Real captures that may lie beside the checkout; the tests say so when they do not."""


def _runs(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _in_fresh_netns(command: str) -> bool:
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    return _runs("unshare", *flags, "sh", "-c", command)


def _has(tool: str) -> Callable[[], bool]:
    return lambda: (
        shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None
    )


def _userns() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(0x10000000 | 0x40000000) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def _cgroup2() -> bool:
    """Say whether root may make folders in a cgroup v2 hierarchy, by making one."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for fields in mounts:
        if fields[fields.index("-") + 1] == "cgroup2":
            trial = Path(fields[4], f"netlab-test-{os.getpid()}")
            try:
                trial.mkdir()
            except OSError:
                return False
            trial.rmdir()
            return True
    return False


def browser() -> str | None:
    """Return the path of Chromium, or of Chrome where the distribution has no package of it."""
    return shutil.which("chromium") or shutil.which("google-chrome")


PROBES: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "userns": (_userns, "this kernel lets no user namespace be made here"),
    "netns": (lambda: _in_fresh_netns("true"), "needs root or user namespaces"),
    "cgroup2": (_cgroup2, "needs root and a writable cgroup v2"),
    "nft": (
        lambda: _in_fresh_netns("nft add table inet probe"),
        "apt-get install nftables, and a kernel with nf_tables inet",
    ),
    "netem": (
        lambda: _in_fresh_netns("ip link set lo up && tc qdisc add dev lo root netem delay 1ms"),
        "this kernel has no sch_netem (Ubuntu: linux-modules-extra)",
    ),
    "tun": (
        lambda: _in_fresh_netns("ip tuntap add dev probe0 mode tap"),
        "/dev/net/tun is missing or closed",
    ),
    "tcpdump": (_has("tcpdump"), "apt-get install tcpdump"),
    "tshark": (_has("tshark"), "apt-get install tshark"),
    "tcptrace": (_has("tcptrace"), "apt-get install tcptrace"),
    "bird": (_has("bird"), "apt-get install bird2"),
    "iperf3": (_has("iperf3"), "apt-get install iperf3"),
    "ping": (_has("ping"), "apt-get install iputils-ping"),
    "ss": (_has("ss"), "apt-get install iproute2"),
    "strace": (_has("strace"), "apt-get install strace"),
    "ethtool": (_has("ethtool"), "apt-get install ethtool"),
    "zstd": (_has("zstd"), "apt-get install zstd"),
    "uml": (_has("linux.uml"), "apt-get install user-mode-linux"),
    "chromium": (lambda: browser() is not None, "apt-get install chromium"),
    "captures": (CAPTURES.is_dir, f"no captures beside the checkout ({CAPTURES.name}/)"),
}


@functools.cache
def available(what: str) -> bool:
    """Say whether the machine can do `what`, probing once per session."""
    return PROBES[what][0]()


# Examples are the same in each run, and no test depends on how busy the machine is;
# `--hypothesis-profile explore` looks for new ones.
settings.register_profile(
    "fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", settings.get_profile("fixed"), max_examples=1000, derandomize=False
)
settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-profile") in (None, "fixed"):
        # Hypothesis draws constants of our modules too, of those that are loaded by then: which
        # they are depends on the tests that ran before in the same worker. There is no setting.
        none = providers.Constants()
        providers.HypothesisProvider._local_constants = none  # type: ignore[assignment]
    # A shell that starts us in the background has us ignore SIGINT, and so would everything we
    # start: programs under test must see Ctrl-C as they do in a terminal.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.import_plugin("tests.host_guard")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-privileged",
        action="store_true",
        help="fail where a test would be skipped because the machine lacks something",
    )
    parser.addoption(
        "--may-lack",
        action="append",
        default=[],
        metavar="CAPABILITY",
        help="with --require-privileged: still skip for this one (repeatable)",
    )
    parser.addoption(
        "--every-kill-point",
        action="store_true",
        help="kill at every point of the large lab too, not at a sample (half an hour)",
    )
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


_NEEDING_FILE = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.needs\(", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the tests without privileges the import of files in which every test needs some."""
    if config.getoption("-m") != "not needs" or collection_path.suffix != ".py":
        return None
    return _NEEDING_FILE.search(collection_path.read_text()) is not None or None


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of every later round of the garbage collector."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            if what not in PROBES:
                raise pytest.UsageError(f"{item.nodeid}: unknown capability {what!r}")
            if not available(what):
                strict = item.config.getoption("--require-privileged")
                allowed = item.config.getoption("--may-lack")
                reason = f"needs {what}: {PROBES[what][1]}"
                (pytest.fail if strict and what not in allowed else pytest.skip)(reason)


@pytest.fixture(autouse=True)
def _interrupts_as_before() -> Generator[None]:
    """Fail a test that leaves SIGINT ignored or blocked: all that is started later inherits it."""
    yield
    handler = signal.getsignal(signal.SIGINT)
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    assert handler is signal.default_int_handler
    assert not blocked


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare text with a golden file, or rewrite the file under --update-golden."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"no golden file {path.name}; run pytest with --update-golden"
        assert text == path.read_text()

    return compare
