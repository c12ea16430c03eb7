"""Look at a whole lab at once: interfaces, queues and TCP sockets of many network namespaces.

    echo '{"nodes": {"h1": "net:[4026532000]"}}' | python3 -I -S overview.py

Each line of standard input asks for one look and is answered by one line, both JSON. `nodes` are
the namespaces to look at from then on, as /proc calls them, found among the open files of process 1
(the supervisor of a lab). A look costs a few system calls for each namespace and no fork: it enters
it, dumps links (RTM_GETLINK), root queue disciplines (RTM_GETQDISC) and TCP sockets
(NETLINK_SOCK_DIAG), and keeps nothing open, so that it never delays the end of a namespace. Another
thread than the first does so: where the process is, for whoever looks, never changes.

The answer: `at_ns`, `took_ns`, and `nodes`, null for one that could not be entered, else `links`
(name, index, up, carrier, rx and tx bytes, packets, and what was dropped there), `qdiscs` (index,
kind, dropped, packets and bytes that wait) and `sockets` (state to count). `flows` are the busiest
connections, at most `most` of them: the fields of tcp_info by the kernel's names without `tcpi_`,
with `acked` and `received`, octets since the look before, `span_ns` ago.

A single file that needs nothing but Python's library. Sources: linux/rtnetlink.h, linux/if_link.h,
linux/gen_stats.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import ipaddress
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
CLONE_NEWNET = 0x40000000
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_GETLINK, RTM_GETQDISC = 18, 38
TCPDIAG_GETSOCK = 18
"""The older request for sockets: it is for IPv4 and IPv6 together.

A dump goes through a table that all namespaces share, a millisecond whoever is in it.
"""
DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
ROOT = 0xFFFFFFFF
IFLA_IFNAME, IFLA_STATS64, IFLA_CARRIER = 3, 23, 33
TCA_KIND, TCA_STATS2, TCA_STATS_QUEUE = 1, 7, 3
INET_DIAG_INFO, INET_DIAG_CONG = 2, 4
MOST = 100

STATES = (
    "", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN",
    "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "SYN-RECV",
)  # fmt: skip
# Offsets in struct tcp_info of what is told of a connection.
FIELDS = (
    ("rto", "I", 8), ("snd_mss", "I", 16), ("unacked", "I", 24), ("lost", "I", 32),
    ("rtt", "I", 68), ("rttvar", "I", 72), ("snd_ssthresh", "I", 76), ("snd_cwnd", "I", 80),
    ("total_retrans", "I", 100), ("notsent_bytes", "I", 144), ("min_rtt", "I", 148),
    ("delivery_rate", "Q", 160),
)  # fmt: skip
LAYOUT = tuple((name, struct.Struct("=" + code), offset) for name, code, offset in FIELDS)
BYTES = struct.Struct("=QQ")  # bytes_acked, bytes_received
BYTES_AT = 120

_libc = ctypes.CDLL(None, use_errno=True)


def attributes(data: memoryview, at: int) -> Iterator[tuple[int, memoryview]]:
    """Return the (type, payload) pairs of netlink attributes from an offset on."""
    end = len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += -(-length // 4) * 4


def dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[memoryview]:
    """Ask for all of something and return the payloads of the answers."""
    sock.send(struct.pack("=IHHII", 16 + len(body), kind, DUMP, 1, 0) + body)
    while True:
        data, at = memoryview(sock.recv(1 << 18)), 0
        while at + 16 <= len(data):
            length, what = struct.unpack_from("=IH", data, at)
            if what == NLMSG_DONE:
                return
            if what == NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, at + 16)[0]
                if number in (2, 93, 95, 97):  # no such protocol or family in this kernel
                    return
                raise OSError(number, os.strerror(number))
            yield data[at + 16 : at + length]
            at += -(-length // 4) * 4


def links(route: socket.socket) -> list[list[Any]]:
    """Return the interfaces of the namespace of a socket, but its loopback."""
    found: list[list[Any]] = []
    for data in dump(route, RTM_GETLINK, bytes(16)):
        index, flags = struct.unpack_from("=iI", data, 4)
        if flags & 8:  # IFF_LOOPBACK
            continue
        name, carrier, counters = "", 0, (0,) * 8
        for kind, payload in attributes(data, 16):
            if kind == IFLA_IFNAME:
                name = bytes(payload).rstrip(b"\0").decode(errors="replace")
            elif kind == IFLA_CARRIER:
                carrier = payload[0]
            elif kind == IFLA_STATS64:
                # packets, bytes, errors, dropped: each received, then sent
                counters = struct.unpack_from("=8Q", payload)
        rx, tx, rx_bytes, tx_bytes, rx_bad, tx_bad, rx_lost, tx_lost = counters
        dropped = rx_bad + tx_bad + rx_lost + tx_lost
        found.append([name, index, flags & 1, carrier, rx_bytes, tx_bytes, rx, tx, dropped])
    return found


def qdiscs(route: socket.socket) -> list[list[Any]]:
    """Return the root queue disciplines; what their children drop and hold is counted there too."""
    found: list[list[Any]] = []
    for data in dump(route, RTM_GETQDISC, bytes(20)):
        index, _, parent = struct.unpack_from("=iII", data, 4)
        if parent != ROOT:
            continue
        name, dropped, packets, octets = "", 0, 0, 0
        for kind, payload in attributes(data, 20):
            if kind == TCA_KIND:
                name = bytes(payload).rstrip(b"\0").decode()
            elif kind == TCA_STATS2:
                for part, value in attributes(payload, 0):
                    if part == TCA_STATS_QUEUE:
                        packets, octets, dropped = struct.unpack_from("=3I", value)
        if name != "noqueue":
            found.append([index, name, dropped, packets, octets])
    return found


class Connections:
    """The TCP connections of all nodes: their states, and who was busy since the look before."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int], tuple[int, int]] = {}
        self._now: dict[tuple[str, int], tuple[int, int]] = {}
        self._busy: list[tuple[int, int, str, bytes]] = []
        self._began = False

    def look(self, node: str, diag: socket.socket) -> dict[str, int]:
        """Return how many sockets of a node are in which state."""
        counts: dict[str, int] = {}
        extensions = 1 << INET_DIAG_INFO - 1 | 1 << INET_DIAG_CONG - 1
        # struct inet_diag_req: family, lengths of addresses, extensions, a socket, states
        asked = struct.pack("=BBBB48xII", 0, 0, 0, extensions, ROOT, 0)
        for data in dump(diag, TCPDIAG_GETSOCK, asked):
            number = data[1]
            state = STATES[number] if number < len(STATES) else str(number)
            counts[state] = counts.get(state, 0) + 1
            if number not in (6, 7, 10, 12):  # time-wait, closed, listening, a request
                self._note(node, data)
        return counts

    def _note(self, node: str, data: memoryview) -> None:
        for kind, info in attributes(data, 72):
            if kind == INET_DIAG_INFO and len(info) >= BYTES_AT + BYTES.size:
                key = node, struct.unpack_from("=Q", data, 44)[0]
                acked, received = self._now[key] = BYTES.unpack_from(info, BYTES_AT)
                acked0, received0 = self._earlier(key)
                moved = acked - acked0 + received - received0
                self._busy.append((moved, len(self._busy), node, bytes(data)))
                return

    def _earlier(self, key: tuple[str, int]) -> tuple[int, int]:
        """What a connection had moved at the look before; a new one had moved nothing."""
        return self._before.get(key, (0, 0)) if self._began else self._now[key]

    def busiest(self, most: int) -> list[Json]:
        """Return the connections that moved most octets, and begin a new span."""
        chosen = heapq.nlargest(most, self._busy)
        found = [self._tell(node, memoryview(data)) for _, _, node, data in chosen]
        self._before, self._now, self._busy, self._began = self._now, {}, [], True
        return found

    def _tell(self, node: str, data: memoryview) -> Json:
        family, state = data[0], data[1]
        lport, rport = struct.unpack_from(">HH", data, 4)
        size = 16 if family == socket.AF_INET6 else 4
        cookie = struct.unpack_from("=Q", data, 44)[0]
        flow: Json = {
            "node": node,
            "state": STATES[state] if state < len(STATES) else str(state),
            "local": str(ipaddress.ip_address(bytes(data[8 : 8 + size]))),
            "lport": lport,
            "remote": str(ipaddress.ip_address(bytes(data[24 : 24 + size]))),
            "rport": rport,
            "cookie": cookie,
        }
        acked, received = self._now[node, cookie]
        acked0, received0 = self._earlier((node, cookie))
        flow |= {"acked": acked - acked0, "received": received - received0}
        for kind, payload in attributes(data, 72):
            if kind == INET_DIAG_INFO:
                for name, layout, offset in LAYOUT:
                    if offset + layout.size <= len(payload):
                        flow[name] = layout.unpack_from(payload, offset)[0]
            elif kind == INET_DIAG_CONG:
                flow["congestion"] = bytes(payload).rstrip(b"\0").decode("ascii", "replace")
        return flow


def has_sockets() -> bool:
    """Tell whether the namespace we are in has any TCP socket, without a dump."""
    for name, label in (("sockstat", "TCP:"), ("sockstat6", "TCP6:")):
        try:
            with open(f"/proc/thread-self/net/{name}") as file:  # noqa: PTH123
                rows = [line.split() for line in file if line.startswith(label)]
        except OSError:
            continue  # no IPv6
        for _, *words in rows:
            told = dict(zip(words[::2], words[1::2], strict=False))
            if any(told.get(key, "0") != "0" for key in ("inuse", "tw")):
                return True
    return False


def open_namespaces() -> dict[str, str]:
    """Return the paths of the namespaces that process 1 holds open, by what /proc calls them."""
    found: dict[str, str] = {}
    for name in os.listdir("/proc/1/fd"):  # noqa: PTH208
        path = f"/proc/1/fd/{name}"
        with contextlib.suppress(OSError):
            target = os.readlink(path)  # noqa: PTH115
            if target.startswith("net:["):
                found[target] = path
    return found


def enter(path: str, identity: str) -> None:
    """Go into a namespace with the thread that calls, and see that it is the one meant."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), identity)
    finally:
        os.close(handle)
    if os.readlink("/proc/thread-self/ns/net") != identity:  # noqa: PTH115
        raise FileNotFoundError(2, "no such namespace", identity)


class Overview:
    """Looks at namespaces again and again."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._connections = Connections()
        self._last_ns = 0

    def look(self, asked: Json) -> Json:
        """Answer one request."""
        if "nodes" in asked:
            self._nodes = asked["nodes"]
            self._paths = open_namespaces()
        at, began = time.time_ns(), time.monotonic_ns()
        nodes = {name: self._node(name, identity) for name, identity in self._nodes.items()}
        span, self._last_ns = began - self._last_ns if self._last_ns else 0, began
        flows = self._connections.busiest(int(asked.get("most", MOST)))
        took = time.monotonic_ns() - began
        return {"at_ns": at, "took_ns": took, "span_ns": span, "nodes": nodes, "flows": flows}

    def _node(self, name: str, identity: str) -> Json | None:
        try:
            enter(self._paths[identity], identity)
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as route:
                found: Json = {"links": links(route), "qdiscs": qdiscs(route)}
            found["sockets"] = {}
            if has_sockets():
                with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
                    found["sockets"] = self._connections.look(name, diag)
            return found
        except (KeyError, OSError):
            return None  # rebooting, or gone


def serve() -> None:
    """Answer every line of standard input until its end."""
    overview = Overview()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    for line in sys.stdin:
        answer = overview.look(json.loads(line))
        _libc.setns(home, CLONE_NEWNET)
        print(json.dumps(answer, separators=(",", ":")), flush=True)


def main() -> int:
    """Serve from a thread of its own; 0 at the end of standard input."""
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
