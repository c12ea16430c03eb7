"""Every lab pins what its results depend on, by including one file."""

from __future__ import annotations

import pytest

from netlab.labs import discovery
from netlab.model.topology import Role
from netlab.model.yaml import load

SYSCTLS = {
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
}
CONGESTION = {"window-scaling": "reno"}
"""What is pinned to something else, and why is said in the lab's topology."""


@pytest.mark.parametrize("name", discovery.names())
def test_a_lab_pins_what_differs_between_machines(name: str) -> None:
    lab = discovery.find(name)
    topology = load(lab.folder / lab.topology)
    for node in topology.nodes:
        if node.role is Role.SWITCH:
            continue
        assert node.congestion == CONGESTION.get(name, "cubic"), node.name
        pinned = dict(node.sysctls)
        for key, value in SYSCTLS.items():
            assert pinned.get(key) == value, (node.name, key)
    assert not [link.name for link in topology.links if link.offloads]
