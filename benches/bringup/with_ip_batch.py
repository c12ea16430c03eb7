"""The best a shell script does: one `ip -batch` for namespaces and links, then one per node.

usage: with_ip_batch.py KIND N; prints the seconds from the finished files to the last exit status,
waits for the end of its input, takes all away, and prints how long that took.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import network


def scripts(net: network.Network, folder: Path) -> tuple[str, str]:
    name = net.name
    top = [f"netns add {name(number)}" for number in range(net.size)]
    per: list[list[str]] = [["link set lo up"] for _ in range(net.size)]
    for w in net.wires:
        ends = f"link add {w.a_name} netns {name(w.a)} type veth"
        top.append(f"{ends} peer name {w.b_name} netns {name(w.b)}")
        for node, dev, address in zip((w.a, w.b), (w.a_name, w.b_name), w.addresses, strict=True):
            per[node] += [f"addr add {address} dev {dev}", f"link set {dev} up"]
    for node, to, via, _ in net.routes:
        per[node].append(f"route add {to} via {via}")
    (folder / "top").write_text("\n".join(top) + "\n")
    up = ["set -e", f"ip -batch {folder}/top"]
    forwarders = set(net.forwarders)
    for number, lines in enumerate(per):
        (folder / str(number)).write_text("\n".join(lines) + "\n")
        up.append(f"ip -n {name(number)} -batch {folder}/{number}")
        if number in forwarders:
            write = "echo 1 > /proc/sys/net/ipv4/ip_forward"
            up.append(f"nsenter --net=/run/netns/{name(number)} sh -c '{write}'")
    (folder / "down").write_text("".join(f"netns del {name(n)}\n" for n in range(net.size)))
    return "\n".join(up), f"ip -batch {folder}/down"


def main() -> None:
    net = network.make(sys.argv[1], int(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        up, down = scripts(net, Path(folder))
        began = time.perf_counter()
        subprocess.run(["/bin/sh"], input=up, text=True, check=True)
        print(f"{time.perf_counter() - began:.6f}", flush=True)
        sys.stdin.read()
        began = time.perf_counter()
        subprocess.run(["/bin/sh", "-c", down], check=True)
        print(f"{time.perf_counter() - began:.6f}", flush=True)


main()
