"""pyroute2 used sparingly: one socket per namespace opened by a short thread, no look-ups.

usage as with_ip_batch.py.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import network
from pyroute2 import IPRoute

NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    net = network.make(sys.argv[1], int(sys.argv[2]))
    forwarders = set(net.forwarders)
    began = time.perf_counter()
    fds: list[int] = []
    sockets: list[socket.socket] = []

    def namespaces() -> None:
        for number in range(net.size):
            if libc.unshare(NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            fds.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            sockets.append(
                socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
            )  # asyncio insists
            if number in forwarders:
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    thread = threading.Thread(target=namespaces)
    thread.start()
    thread.join()
    per: list[list[tuple[str, dict[str, Any]]]] = [[] for _ in range(net.size)]
    with IPRoute() as ip:
        for i, w in enumerate(net.wires):
            ends = ((w.a, w.a_name, 100 + 2 * i), (w.b, w.b_name, 101 + 2 * i))
            (a, a_name, a_index), (b, b_name, _) = ends
            ip.link(
                "add", ifname=a_name, index=a_index, kind="veth", net_ns_fd=fds[a],
                peer={"ifname": b_name, "net_ns_fd": fds[b]},
            )  # fmt: skip
            for (node, dev, _), address in zip(ends, w.addresses, strict=True):
                per[node].append((dev, {"address": str(address.ip), "prefixlen": 30}))
    routes: list[list[dict[str, Any]]] = [[] for _ in range(net.size)]
    for node, to, via, _ in net.routes:
        routes[node].append({"dst": str(to), "gateway": str(via)})
    for number in range(net.size):
        with IPRoute(use_socket=sockets[number]) as ip:
            ip.link("set", index=1, state="up")
            for dev, address in per[number]:
                index = ip.link_lookup(ifname=dev)[0]  # a peer's index is silently not passed on
                ip.addr("add", index=index, **address)
                ip.link("set", index=index, state="up")
            for route in routes[number]:
                ip.route("add", **route)
    print(f"{time.perf_counter() - began:.6f}", flush=True)
    sys.stdin.read()
    began = time.perf_counter()
    for fd in fds:
        os.close(fd)
    print(f"{time.perf_counter() - began:.6f}", flush=True)


main()
