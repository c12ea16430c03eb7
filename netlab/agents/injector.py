"""Send raw and forged packets inside a lab: few, slowly, and never outside one.

    python -m netlab.agents.injector send --source 10.0.0.1 --destination 10.0.0.2 tcp --dport 80
    python -m netlab.agents.injector send --hex "4500003c..." --interface eth0 --mac 02:...
    python -m netlab.agents.injector replay --interface eth0 --dport 5000 --mac 02:...

`send` builds an IPv4 or IPv6 packet with a TCP or UDP header, every field as asked, checksums right
or deliberately wrong; of several TCP segments each may have the next port or a later number.
`replay` keeps a copy of the first data segment that leaves by an interface, and sends it once more
with its sequence number moved to the next one due, as an old duplicate would look once 2^32 numbers
have gone by.

Safety: it refuses to run in the machine's own network namespace (the one process 1 lives in, and
the one netlab was started from), sends no more than 10000 packets and no more than 1000 a second.

Each step is one line on stdout, a word and `key=value` pairs with JSON values. A single file that
needs nothing but Python's library; it also runs under `python3 -I -S`. Sources: RFC 791, RFC 8200,
RFC 9293, RFC 768, RFC 1071; ip(7), packet(7).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

MOST_PACKETS = 10_000
FASTEST = 1000.0
"""Packets a second."""

FLAGS = {
    "fin": 0x01, "syn": 0x02, "rst": 0x04, "psh": 0x08, "ack": 0x10, "urg": 0x20, "ece": 0x40,
    "cwr": 0x80,
}  # fmt: skip
ETH_P_IP, ETH_P_IPV6, ETH_P_ALL = 0x0800, 0x86DD, 0x0003
IPV6_HDRINCL = 36
OUTGOING = 4  # PACKET_OUTGOING of packet(7)


class RefusedError(Exception):
    """What was asked is not done here."""


def say(word: str, **pairs: str | float) -> None:
    """Print one step: a word and its key=value pairs."""
    print(word, *(f"{key}={json.dumps(value)}" for key, value in pairs.items()), flush=True)


def own_namespace_reason(
    environment: Mapping[str, str],
    here: str = "/proc/thread-self/ns/net",
    init: str = "/proc/1/ns/net",
) -> str | None:
    """Return why this must be the machine's own network namespace; None if it is a lab's.

    Inside a lab process 1 is the lab's supervisor, which may live in a namespace of its own: then
    that comparison says nothing, and the number netlab passed down decides. Where neither tells,
    the answer is the cautious one.
    """
    try:
        mine = os.stat(here)  # noqa: PTH116
    except OSError as error:
        return f"the network namespace cannot be told: {error.strerror}"
    told = environment.get("NETLAB_MACHINE_NETNS", "")
    if told and told == str(mine.st_ino):
        return "this is the network namespace netlab was started from"
    known = bool(told)
    try:
        first = os.stat(init)  # noqa: PTH116
        known = True
        if (first.st_dev, first.st_ino) == (mine.st_dev, mine.st_ino):
            return "this is the network namespace of process 1"
    except OSError:
        pass  # another user's process: not readable, which tells nothing
    return None if known else "it cannot be told whether this is the machine's own namespace"


def checksum(data: bytes) -> int:
    """Return the one's complement checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return what TCP and UDP sum before their own octets."""
    a, b = ip_address(source).packed, ip_address(destination).packed
    if len(a) == 4:
        return a + b + struct.pack("!BBH", 0, protocol, length)
    return a + b + struct.pack("!I3xB", length, protocol)


def wanted_checksum(asked: str, right: int) -> int:
    """Return the checksum to write: `good`, `bad` (its complement), or a number."""
    if asked == "good":
        return right
    if asked == "bad":
        return right ^ 0xFFFF
    return int(asked, 0) & 0xFFFF


def tcp_options(texts: Sequence[str]) -> bytes:
    """Return TCP options, padded to four octets: `mss=1460 wscale=7 sackok ts=1,0 nop hex=fe02`."""
    data = b""
    for text in texts:
        name, _, value = text.partition("=")
        if name == "mss":
            data += struct.pack("!BBH", 2, 4, int(value))
        elif name == "wscale":
            data += struct.pack("!BBB", 3, 3, int(value))
        elif name == "sackok":
            data += b"\x04\x02"
        elif name == "ts":
            first, _, second = value.partition(",")
            data += struct.pack("!BBII", 8, 10, int(first), int(second or "0"))
        elif name == "nop":
            data += b"\x01"
        elif name == "hex":
            data += bytes.fromhex(value)
        else:
            raise RefusedError(f"unknown TCP option {text!r}")
    data += b"\0" * (-len(data) % 4)
    if len(data) > 40:
        raise RefusedError(f"the options take {len(data)} octets; TCP has room for 40")
    return data


def tcp(
    source: str,
    destination: str,
    *,
    sport: int,
    dport: int,
    seq: int = 0,
    ack: int = 0,
    flags: int = FLAGS["syn"],
    window: int = 65535,
    options: bytes = b"",
    data: bytes = b"",
    checksum_: str = "good",
) -> bytes:
    """Return a TCP segment."""
    offset = (20 + len(options)) // 4 << 4
    ports = struct.pack("!HH", sport, dport)
    numbers = struct.pack("!II", seq % 2**32, ack % 2**32)
    head = ports + numbers + struct.pack("!BBH", offset, flags, window)
    rest = struct.pack("!H", 0) + options + data
    length = len(head) + 2 + len(rest)
    right = checksum(pseudo_header(source, destination, 6, length) + head + b"\0\0" + rest)
    return head + struct.pack("!H", wanted_checksum(checksum_, right)) + rest


def udp(
    source: str,
    destination: str,
    *,
    sport: int,
    dport: int,
    data: bytes = b"",
    checksum_: str = "good",
) -> bytes:
    """Return a UDP datagram; a right checksum of 0 is written 0xffff, for 0 means none."""
    length = 8 + len(data)
    head = struct.pack("!HHH", sport, dport, length)
    right = checksum(pseudo_header(source, destination, 17, length) + head + b"\0\0" + data)
    return head + struct.pack("!H", wanted_checksum(checksum_, right or 0xFFFF)) + data


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    ident: int = 0,
    fragment: int = 0x4000,
    checksum_: str = "good",
) -> bytes:
    """Return an IPv4 packet; `fragment` is the word of flags and offset (0x4000: DF)."""
    a, b = ip_address(source).packed, ip_address(destination).packed
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBB", 0x45, 0, length, ident, fragment, ttl, protocol)
    right = checksum(head + b"\0\0" + a + b)
    return head + struct.pack("!H", wanted_checksum(checksum_, right)) + a + b + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """Return an IPv6 packet."""
    a, b = ip_address(source).packed, ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + a + b + payload


def destination_of(packet: bytes) -> tuple[int, str]:
    """Return (family, destination) of an IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return socket.AF_INET, str(ip_address(packet[16:20]))
    if version == 6 and len(packet) >= 40:
        return socket.AF_INET6, str(ip_address(packet[24:40]))
    raise RefusedError("that is no IPv4 or IPv6 packet with a whole header")


@dataclass(frozen=True)
class Way:
    """How packets leave: by the routes (a raw socket), or by an interface to a link address.

    The kernel writes the checksum and the total length of an IPv4 header itself on a raw socket;
    only a packet socket sends these as they are.
    """

    interface: str = ""
    mac: str = ""

    def open(self, family: int) -> socket.socket:
        """Open the socket; it needs CAP_NET_RAW, which a lab's programs have."""
        if self.interface:
            return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        return sock

    def send(self, sock: socket.socket, packet: bytes, family: int, destination: str) -> None:
        """Send one packet."""
        if self.interface:
            kind = ETH_P_IP if family == socket.AF_INET else ETH_P_IPV6
            address = bytes.fromhex(self.mac.replace(":", ""))
            sock.sendto(packet, (self.interface, kind, 0, 0, address))
        else:
            sock.sendto(packet, (destination, 0))


def build(args: argparse.Namespace, number: int = 0) -> bytes:
    """Build the packet that the command line describes, or the one that comes `number` later."""
    if args.hex:
        packet = bytes.fromhex(args.hex)
        return recompute(packet, args.fix.split(",")) if args.fix else packet
    if not (args.source and args.destination and args.protocol):
        raise RefusedError("say --source, --destination and tcp or udp; or --hex")
    data = bytes.fromhex(args.data_hex) if args.data_hex else args.data.encode()
    common: dict[str, Any] = {
        "sport": args.sport,
        "dport": args.dport,
        "data": data,
        "checksum_": args.checksum,
    }
    if args.protocol == "tcp":
        flags = sum(FLAGS[name] for name in set(args.flags.split(",")) if name)
        common["sport"] = (args.sport + number * args.step_sport) % 65536
        payload = tcp(
            args.source,
            args.destination,
            seq=args.seq + number * args.step_seq,
            ack=args.ack,
            flags=flags,
            window=args.window,
            options=tcp_options(args.option),
            **common,
        )
        number = 6
    else:
        payload, number = udp(args.source, args.destination, **common), 17
    if ip_address(args.source).version == 6:
        return ipv6(args.source, args.destination, number, payload, ttl=args.ttl)
    return ipv4(
        args.source,
        args.destination,
        number,
        payload,
        ttl=args.ttl,
        ident=args.ident,
        fragment=0x4000 if args.df else 0,
        checksum_=args.ip_checksum,
    )


def recompute(packet: bytes, which: Sequence[str]) -> bytes:
    """Return an IPv4 packet with the checksums of "ip", "tcp" or "udp" made right."""
    if not packet or packet[0] >> 4 != 4:
        raise RefusedError("--fix is for IPv4 packets")
    end = (packet[0] & 0xF) * 4
    head, body = bytearray(packet[:end]), bytearray(packet[end:])
    source, destination = str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))
    if "ip" in which:
        head[10:12] = b"\0\0"
        head[10:12] = struct.pack("!H", checksum(bytes(head)))
    at = 16 if head[9] == 6 else 6
    if {"tcp", "udp"} & set(which):
        body[at : at + 2] = b"\0\0"
        pseudo = pseudo_header(source, destination, head[9], len(body))
        body[at : at + 2] = struct.pack("!H", checksum(pseudo + bytes(body)))
    return bytes(head + body)


def send(args: argparse.Namespace) -> None:
    """Send the packet as often as asked."""
    if not 1 <= args.count <= MOST_PACKETS:
        raise RefusedError(f"between 1 and {MOST_PACKETS} packets, not {args.count}")
    if args.rate > FASTEST or args.rate <= 0:
        raise RefusedError(f"at most {FASTEST:g} packets a second, not {args.rate:g}")
    if bool(args.interface) != bool(args.mac):
        raise RefusedError("--interface and --mac go together")
    packet = build(args)
    family, destination = destination_of(packet)
    way = Way(args.interface, args.mac)
    with way.open(family) as sock:
        for number in range(args.count):
            if number:
                time.sleep(1 / args.rate)
                packet = build(args, number)
            way.send(sock, packet, family, destination)
    say(
        "sent",
        packets=args.count,
        bytes=len(packet),
        hex=packet.hex(),
        at_ns=time.clock_gettime_ns(time.CLOCK_REALTIME),
    )


def replay(args: argparse.Namespace) -> None:
    """Keep the first data segment that leaves for a port; send it again when told to."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as sock:
        sock.bind((args.interface, ETH_P_ALL))
        sock.settimeout(0.05)
        say("watching", interface=args.interface, port=args.dport)
        kept = latest = b""
        due = 0
        told = False
        end = time.monotonic() + args.timeout
        while time.monotonic() < end:
            told = told or signal.SIGUSR1 in signal.sigpending()
            try:
                packet, where = sock.recvfrom(65535)
            except TimeoutError:
                if told and kept:  # and everything that had left by then has been looked at
                    break
                continue
            if where[2] != OUTGOING or not is_data(packet, args.dport):
                continue
            latest = packet
            start = (packet[0] & 0xF) * 4
            total = struct.unpack_from("!H", packet, 2)[0]
            seq = struct.unpack_from("!I", packet, start + 4)[0]
            due = (seq + total - start - (packet[start + 12] >> 4) * 4) % 2**32
            if not kept:
                kept = packet[:total]
                say("kept", seq=seq, bytes=len(kept))
        if not kept:
            raise RefusedError("no data segment left in time")
        copy = bytearray(kept)
        start = (copy[0] & 0xF) * 4
        if not args.same:
            copy[start + 4 : start + 8] = struct.pack("!I", due)
        if args.fresh:
            ours, newest = timestamp_at(kept), timestamp_at(latest)
            if ours and newest:
                copy[ours : ours + 4] = latest[newest : newest + 4]
        way = Way(args.interface, args.mac)
        packet = recompute(bytes(copy), ["ip", "tcp"])
        family, destination = destination_of(packet)
        with way.open(family) as out:
            way.send(out, packet, family, destination)
        say("replayed", seq=due, bytes=len(packet))


def timestamp_at(packet: bytes) -> int:
    """Return where the TSval of an IPv4 TCP segment lies in the packet; 0 if it has none."""
    start = (packet[0] & 0xF) * 4
    at, end = start + 20, start + (packet[start + 12] >> 4) * 4
    while at + 1 < end and packet[at]:
        if packet[at] == 8:
            return at + 2
        at += 1 if packet[at] == 1 else max(2, packet[at + 1])
    return 0


def is_data(packet: bytes, dport: int) -> bool:
    """Tell whether an IP packet is an unfragmented IPv4 TCP segment with data for a port."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
        return False
    start = (packet[0] & 0xF) * 4
    total = struct.unpack_from("!H", packet, 2)[0]
    if len(packet) < start + 20 or struct.unpack_from("!H", packet, start + 2)[0] != dport:
        return False
    return total - start - (packet[start + 12] >> 4) * 4 > 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="injector", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("send", help="build a packet and send it")
    one.add_argument("--hex", default="", help="the whole packet, from its IP header on")
    one.add_argument("--fix", default="", help="with --hex: make checksums right, as ip,tcp,udp")
    one.add_argument("--source", default="", help="source address, forged if you like")
    one.add_argument("--destination", default="", help="destination address")
    one.add_argument("--interface", default="", help="leave by this interface, past the routes")
    one.add_argument("--mac", default="", help="link address of the receiver on that interface")
    one.add_argument("--count", type=int, default=1, help=f"at most {MOST_PACKETS}")
    one.add_argument("--rate", type=float, default=100, help=f"a second, at most {FASTEST:g}")
    one.add_argument("--ttl", type=int, default=64)
    one.add_argument("--ident", type=int, default=0, help="identification (IPv4)")
    one.add_argument("--no-df", dest="df", action="store_false", help="let routers fragment it")
    one.add_argument("--ip-checksum", default="good", help="good, bad or a number")
    one.set_defaults(run=send)
    protocols = one.add_subparsers(dest="protocol")
    for name in ("tcp", "udp"):
        protocol = protocols.add_parser(name)
        protocol.add_argument("--sport", type=int, default=12345)
        protocol.add_argument("--dport", type=int, required=True)
        protocol.add_argument("--data", default="", help="data as text")
        protocol.add_argument("--data-hex", default="", help="data as octets")
        protocol.add_argument("--checksum", default="good", help="good, bad or a number")
        if name == "tcp":
            protocol.add_argument("--seq", type=int, default=0)
            protocol.add_argument("--ack", type=int, default=0)
            protocol.add_argument("--step-sport", type=int, default=0, help="from each to the next")
            protocol.add_argument("--step-seq", type=int, default=0, help="from each to the next")
            protocol.add_argument("--flags", default="syn", help="such as syn,ack")
            protocol.add_argument("--window", type=int, default=65535)
            protocol.add_argument("--option", action="append", default=[], help="such as mss=1460")

    again = commands.add_parser("replay", help="send an old segment again")
    again.add_argument("--interface", required=True)
    again.add_argument("--dport", type=int, required=True)
    again.add_argument("--mac", required=True, help="link address of the next hop")
    again.add_argument("--timeout", type=float, default=30, help="seconds to wait for SIGUSR1")
    again.add_argument("--fresh", action="store_true", help="with the timestamp of the latest one")
    again.add_argument("--same", action="store_true", help="with the number it had")
    again.set_defaults(run=replay)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Send; 0 when sent, 1 when the kernel refused, 2 when it is not done here."""
    args = parse(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    reason = own_namespace_reason(os.environ)
    if reason is not None:
        print(f"injector: {reason}; it runs inside a lab only", file=sys.stderr)
        return 2
    try:
        args.run(args)
    except (RefusedError, ValueError) as error:
        print(f"injector: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        name = errno.errorcode.get(error.errno, "") if error.errno else ""
        say("failed", errno=name, text=error.strerror or str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
