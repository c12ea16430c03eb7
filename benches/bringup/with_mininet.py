"""Mininet's own objects with plain links and no controller; run by the system's Python.

usage: with_mininet.py LINKS-FILE N, a line "a b" per link. Output as of with_ip_batch.py. Mininet
gives a host one address only and no routes, so it does less than the others.
"""

import sys
import time
from pathlib import Path

from mininet.link import Link
from mininet.net import Mininet
from mininet.node import Host

pairs = [tuple(map(int, line.split())) for line in Path(sys.argv[1]).read_text().splitlines()]
began = time.perf_counter()
net = Mininet(controller=None, link=Link, host=Host)
hosts = [net.addHost(f"nlb{n}") for n in range(int(sys.argv[2]))]
for a, b in pairs:
    net.addLink(hosts[a], hosts[b])
net.build()
net.start()
print(f"{time.perf_counter() - began:.6f}", flush=True)
sys.stdin.read()
began = time.perf_counter()
net.stop()
print(f"{time.perf_counter() - began:.6f}", flush=True)
