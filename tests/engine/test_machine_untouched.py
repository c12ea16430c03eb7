"""What the machine's own namespaces look like before and after a lab, in every respect we know.

Other programs share the machine, so the comparison runs inside a private copy: a child of the test
in fresh network, mount and PID namespaces plays the machine, has an interface, addresses, routes
and firewall rules of its own, and runs a whole lab. Nothing in it may have changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.needs("root", "netns", "userns", "nft", "ping")

MACHINE = """
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
ip link set lo up
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6  # it would go on talking by itself
ip link add out0 type veth peer name out1
ip addr add 192.0.2.1/24 dev out0
ip link set out0 up; ip link set out1 up
until [ "$(ip -br link show type veth | grep -c ' UP ')" = 2 ]; do sleep 0.05; done
ip route add 198.51.100.0/24 via 192.0.2.2
nft -f - <<END
table inet mine {
  chain c {
    type filter hook input priority 0; policy accept;
    tcp dport 9 drop
  }
}
END
processes() { set -- /proc/[0-9]*; echo $#; }  # in a pipe, the rest of it would count or not
snapshot() {
  ip -d link; ip address; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
  ip neigh; tc qdisc; nft list ruleset; iptables-legacy-save 2>/dev/null | grep -v '^#' || true
  grep -rs . /proc/sys/net | grep -vE 'nf_conntrack_count|random|dst_entries|neigh_table'
  cat /proc/self/mountinfo /etc/hosts /etc/resolv.conf
  ls /run /run/netns 2>&1 | grep -v '^netlab$'
  processes; cat /proc/net/dev_mcast
  stat -c '%n %Y %s' /etc /etc/hosts /run/xtables.lock 2>/dev/null || true
}
snapshot | sed 's/valid_lft.*//; s/expires [0-9]*sec//' > "$1/before"
alone=$(processes)
"""

LAB = """
netlab() { "$PYTHON" -m netlab "$@"; }
netlab up topologies/dumbbell.yaml $FLAG
netlab up topologies/lan.yaml $FLAG
netlab exec --lab dumbbell h1 -- ping -c1 -W3 h4 > /dev/null
netlab exec --lab dumbbell h1 -- ip link add theirs type ifb
netlab exec --lab dumbbell h1 -- sysctl -qw net.ipv4.ip_forward=1
netlab exec --lab dumbbell h1 -- nft add table ip theirs
netlab exec --lab dumbbell h1 -- iptables-legacy -w -A INPUT -j DROP
netlab exec --lab dumbbell -d left -- sleep 100
netlab doctor > /dev/null
netlab down --all
"""

AFTER = """
# What `doctor` has tried dies after it, and PID 1 of this small machine reaps at its leisure.
for _ in $(seq 1000); do [ "$(processes)" = "$alone" ] && break; sleep 0.05; done
snapshot | sed 's/valid_lft.*//; s/expires [0-9]*sec//' > "$1/after"
"""


@pytest.mark.parametrize("flag", ["--no-rootless", "--rootless"])
def test_nothing_of_the_machine_changes(flag: str, tmp_path: Path) -> None:
    script = MACHINE + LAB + AFTER
    env = {**os.environ, "PYTHON": sys.executable, "FLAG": flag}
    env.pop("NETLAB_STATE_DIR", None)
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "bash", "-c", script, "bash"]
    done = subprocess.run(
        [*argv, str(tmp_path)],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = ((tmp_path / name).read_text() for name in ("before", "after"))
    assert "out0" in before
    assert "table inet mine" in before
    assert "\n".join(unified_diff(before.splitlines(), after.splitlines(), n=0)) == ""
