"""Bytes of rtnetlink requests: the few bulk messages of a bring-up, encoded by ourselves.

Half of a bring-up in a general library is spent encoding; these functions are `struct` and nothing
else. A message is whole (padded to 4 bytes) and carries no acknowledgement flag: `acknowledged`
adds it to the last one of a burst. Numbers are from <linux/rtnetlink.h>, <linux/if_link.h>,
<linux/pkt_sched.h>.
"""

from __future__ import annotations

import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from netlab.model.topology import PLAIN, RouteOptions
from netlab.model.tunnel import TunnelKind, Vxlan
from netlab.plan.operations import CONNECTED_IPV6, GRE_TTL

NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, NEWQDISC, DELQDISC = (
    16, 17, 20, 21, 24, 25, 36, 37,
)  # fmt: skip
REQUEST, ACK = 0x1, 0x4
CREATE, EXCL, REPLACE = 0x400, 0x200, 0x100
IFF_UP = 0x1
AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
ROOT = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_TCMSG = struct.Struct("=BxxxiIII")
_U32 = struct.Struct("=I")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + _PAD[length & 3]


def u32(kind: int, value: int) -> bytes:
    """An attribute holding an unsigned 32-bit number."""
    return _ATTRIBUTE.pack(8, kind) + _U32.pack(value)


def message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    """One request; `sequence` comes back with an error and says which operation it was."""
    return _HEADER.pack(16 + len(body), kind, REQUEST | flags, sequence, 0) + body


def acknowledged(request: bytes) -> bytes:
    """The same request, asking for an answer also when it succeeds."""
    (flags,) = struct.unpack_from("=H", request, 6)
    return request[:6] + struct.pack("=H", flags | ACK) + request[8:]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _end(index: int, name: str, mac: str, mtu: int) -> tuple[bytes, bytes]:
    """The ifinfomsg and attributes of one end of a veth, its namespace's descriptor last."""
    attributes = (
        attribute(3, name.encode() + b"\0")  # IFLA_IFNAME
        + (attribute(1, _mac(mac)) if mac else b"")  # IFLA_ADDRESS
        + (u32(4, mtu) if mtu else b"")  # IFLA_MTU
        + u32(28, 0)  # IFLA_NET_NS_FD, put in by the supervisor
    )
    return _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0), attributes


def veth(
    sequence: int,
    a: tuple[int, str, str, int],
    b: tuple[int, str, str, int],
) -> tuple[bytes, int, int]:
    """A veth pair, each end (index, name, MAC, MTU) born in its namespace.

    Returns the message and the offsets in it of the two namespace descriptors.
    """
    head_a, attributes_a = _end(*a)
    head_b, attributes_b = _end(*b)
    peer = attribute(1, head_b + attributes_b)  # VETH_INFO_PEER
    info = attribute(1, b"veth") + attribute(2, peer)  # IFLA_INFO_KIND, IFLA_INFO_DATA
    body = head_a + attributes_a + attribute(18, info)  # IFLA_LINKINFO
    first = 16 + len(head_a) + len(attributes_a) - 4
    # The descriptor of b is the last thing of the whole message.
    return message(NEWLINK, CREATE | EXCL, body, sequence), first, 16 + len(body) - 4


def born(sequence: int, index: int, mac: str, mtu: int, queue: int) -> bytes:
    """Give an interface that exists its MAC, its MTU and the length of its transmit queue."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0)
    body += attribute(1, _mac(mac)) if mac else b""  # IFLA_ADDRESS
    body += u32(4, mtu) if mtu else b""  # IFLA_MTU
    return message(NEWLINK, 0, body + u32(13, queue), sequence)  # IFLA_TXQLEN


def tunnel(
    sequence: int,
    end: tuple[int, str, str, int],
    kind: TunnelKind,
    local: IPv4Address | IPv6Address,
    remote: IPv4Address | IPv6Address,
) -> bytes:
    """One end (index, name, MAC, MTU) of a tunnel between two addresses.

    Numbers are those of IFLA_VXLAN_* in <linux/if_link.h> and IFLA_GRE_* in <linux/if_tunnel.h>.
    """
    index, name, mac, mtu = end
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0)
    body += attribute(3, name.encode() + b"\0") + u32(4, mtu)  # IFLA_IFNAME, IFLA_MTU
    if isinstance(kind, Vxlan):
        body += attribute(1, _mac(mac)) if mac else b""  # IFLA_ADDRESS
        four = isinstance(local, IPv4Address)
        data = u32(1, kind.id or 0)  # _ID
        data += attribute(4 if four else 17, local.packed)  # _LOCAL, _LOCAL6
        data += attribute(2 if four else 16, remote.packed)  # _GROUP, _GROUP6
        data += attribute(15, struct.pack("!H", kind.port))  # _PORT
        info = attribute(1, b"vxlan") + attribute(2, data)
    else:
        data = attribute(6, local.packed) + attribute(7, remote.packed)  # _LOCAL, _REMOTE
        data += attribute(8, bytes([GRE_TTL])) + attribute(10, b"\x01")  # _TTL, _PMTUDISC
        if kind.key is not None:
            flags, key = struct.pack("!H", 0x2000), struct.pack("!I", kind.key)  # GRE_KEY
            data += attribute(2, flags) + attribute(3, flags)  # _IFLAGS, _OFLAGS
            data += attribute(4, key) + attribute(5, key)  # _IKEY, _OKEY
        info = attribute(1, b"gre") + attribute(2, data)
    return message(NEWLINK, CREATE | EXCL, body + attribute(18, info), sequence)


def macvlan(sequence: int, end: tuple[int, str], parent: int, namespace: int) -> bytes:
    """An interface (index, name) on another one's network, born in another namespace.

    `parent` is an index in the namespace the request is made in, `namespace` a descriptor.
    """
    index, name = end
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(3, name.encode() + b"\0")
    body += u32(5, parent) + u32(28, namespace)  # IFLA_LINK, IFLA_NET_NS_FD
    info = attribute(1, b"macvlan") + attribute(2, u32(1, 4))  # IFLA_MACVLAN_MODE: bridge
    return message(NEWLINK, CREATE | EXCL, body + attribute(18, info), sequence)


def bridge(sequence: int, index: int, name: str) -> bytes:
    """A bridge that forwards at once: no spanning tree, no multicast snooping."""
    # IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING
    data = u32(5, 0) + attribute(23, b"\0")
    info = attribute(1, b"bridge") + attribute(2, data)
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(3, name.encode() + b"\0")
    return message(NEWLINK, CREATE | EXCL, body + attribute(18, info), sequence)


def set_up(sequence: int, index: int, *, up: bool = True) -> bytes:
    """Set an interface up, or down."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, IFF_UP if up else 0, IFF_UP)
    return message(NEWLINK, 0, body, sequence)


def set_master(sequence: int, index: int, master: int) -> bytes:
    """Put an interface under a bridge; 0 takes it out."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + u32(10, master)  # IFLA_MASTER
    return message(NEWLINK, 0, body, sequence)


def set_mtu(sequence: int, index: int, mtu: int) -> bytes:
    """Set the MTU of an interface."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + u32(4, mtu)
    return message(NEWLINK, 0, body, sequence)


def move(sequence: int, index: int) -> tuple[bytes, int]:
    """Move an interface into another namespace; returns the offset of its descriptor as well."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + u32(28, 0)  # IFLA_NET_NS_FD
    return message(NEWLINK, 0, body, sequence), 16 + len(body) - 4


def delete_link(sequence: int, index: int) -> bytes:
    """Delete an interface; the other end of a veth goes with it."""
    return message(DELLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0), sequence)


def address(
    sequence: int, index: int, given: IPv4Interface | IPv6Interface, *, remove: bool = False
) -> bytes:
    """An address of an interface; IPv6 ones without duplicate address detection."""
    packed, length = given.packed, given.network.prefixlen
    local = attribute(2, packed) + attribute(1, packed)  # IFA_LOCAL, IFA_ADDRESS
    if isinstance(given, IPv4Interface):
        body = _IFADDR.pack(AF_INET, length, 0, 0, index) + local
        if length < 31:
            broadcast = int(given) | (1 << 32 - length) - 1
            body += attribute(4, broadcast.to_bytes(4))  # IFA_BROADCAST
    else:
        body = _IFADDR.pack(AF_INET6, length, 0x02, 0, index) + local  # IFA_F_NODAD
    return message(DELADDR if remove else NEWADDR, 0 if remove else CREATE | EXCL, body, sequence)


def route(
    sequence: int,
    to: IPv4Network | IPv6Network,
    via: IPv4Address | IPv6Address,
    index: int,
    *,
    options: RouteOptions = PLAIN,
    remove: bool = False,
    replace: bool = False,
) -> bytes:
    """A static unicast route of the main table; `replace` puts it in another's place."""
    family = AF_INET if isinstance(to, IPv4Network) else AF_INET6
    # RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST
    body = _RTMSG.pack(family, to.prefixlen, 0, 0, 254, 4, 0, 1, 0)
    if to.prefixlen:
        body += attribute(1, to.network_address.packed)  # RTA_DST
    body += attribute(5, via.packed) + u32(4, index)  # RTA_GATEWAY, RTA_OIF
    if options:
        body += _route_options(options)
    if remove:
        return message(DELROUTE, 0, body, sequence)
    return message(NEWROUTE, CREATE | (REPLACE if replace else EXCL), body, sequence)


def neighbours(
    sequence: int,
    index: int,
    given: IPv4Interface | IPv6Interface,
    options: RouteOptions,
) -> bytes:
    """The route to the neighbours that came with an address, replaced by one with options."""
    family, scope = (AF_INET, 253) if isinstance(given, IPv4Interface) else (AF_INET6, 0)
    network = given.network
    # RT_TABLE_MAIN, RTPROT_KERNEL, RT_SCOPE_LINK for IPv4, RTN_UNICAST
    body = _RTMSG.pack(family, network.prefixlen, 0, 0, 254, 2, scope, 1, 0)
    body += attribute(1, network.network_address.packed) + u32(4, index)
    if isinstance(given, IPv4Interface):
        body += attribute(7, given.packed)  # RTA_PREFSRC
    else:
        body += u32(6, CONNECTED_IPV6)  # RTA_PRIORITY
    return message(NEWROUTE, CREATE | REPLACE, body + _route_options(options), sequence)


def _route_options(options: RouteOptions) -> bytes:
    """RTA_PRIORITY and RTA_METRICS, which holds RTAX_MTU, _ADVMSS, _INITCWND, _INITRWND."""
    found = u32(6, options.metric) if options.metric is not None else b""
    numbers = (
        (2, options.mtu), (8, options.advmss), (11, options.initcwnd), (14, options.initrwnd),
    )  # fmt: skip
    metrics = b"".join(u32(kind, value) for kind, value in numbers if value is not None)
    if options.congestion is not None:
        metrics += attribute(16, options.congestion.encode() + b"\0")  # RTAX_CC_ALGO
    return found + attribute(8, metrics) if metrics else found


def qdisc(
    sequence: int,
    index: int,
    kind: str,
    options: bytes,
    *,
    handle: int = 0,
    parent: int = 0,
    change: bool = False,
) -> bytes:
    """A queue discipline at the root of an interface, or in the class of the one above it.

    `handle` and `parent` are major numbers; `options` come from `netlab.engine.netem`. One that is
    there already is replaced, since some drivers come up with a root discipline of their own and a
    token bucket with a queue inside it; `change` changes it instead, and it must be there.
    """
    above = parent << 16 | 1 if parent else ROOT
    body = _TCMSG.pack(AF_UNSPEC, index, handle << 16, above, 0)
    body += attribute(1, kind.encode() + b"\0") + attribute(2, options)  # TCA_KIND, TCA_OPTIONS
    return message(NEWQDISC, 0 if change else CREATE | REPLACE, body, sequence)


def delete_qdisc(sequence: int, index: int) -> bytes:
    """Take the root qdisc of an interface away: the default one comes back."""
    return message(DELQDISC, 0, _TCMSG.pack(AF_UNSPEC, index, 0, ROOT, 0), sequence)


def probe_qdisc(sequence: int, kind: str) -> bytes:
    """Ask for a qdisc on the loopback without options: only an unknown kind gives ENOENT."""
    parent = 0xFFFFFFF1 if kind in ("clsact", "ingress") else ROOT
    body = _TCMSG.pack(AF_UNSPEC, 1, 0, parent, 0) + attribute(1, kind.encode() + b"\0")
    return message(NEWQDISC, CREATE | REPLACE, body, sequence)


def probe_link(sequence: int, kind: str) -> bytes:
    """Ask for an interface of a kind without its data: only an unknown kind gives EOPNOTSUPP."""
    info = attribute(18, attribute(1, kind.encode()))
    return message(NEWLINK, CREATE | EXCL, _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + info, sequence)
