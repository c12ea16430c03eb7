"""Waiting until the kernel has really taken namespaces away.

It reaps them in one worker, in the order in which they lost their last user and many at a time. So
a marker is dropped after them: a namespace with one end of a veth, whose other end, in a namespace
that stays, disappears when the worker has come to it. The first marker may be reaped in one batch
with what is waited for; the second cannot be in that batch any more.

A closed netlink socket keeps its namespace until RCU lets go of it (`netlink_release` in
net/netlink/af_netlink.c), some milliseconds later, and a marker dropped at once would overtake it.
So the first marker is kept by sockets too, one closed on each processor: a processor lets go in the
order in which things were closed on it, as `rcu_barrier` has it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from netlab.engine import netlink

CLONE_NEWNET = 0x40000000
RTMGRP_LINK = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "namespace")


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _new() -> int:
    _checked(_libc.unshare(CLONE_NEWNET))
    return _here()


def wait() -> None:
    """Return when every namespace that has lost its last user by now is gone."""
    home = _here()
    try:
        kept = _new()
        news = _netlink()
        news.bind((0, RTMGRP_LINK))
        for processors in (os.sched_getaffinity(0), ()):
            gone = _new()
            holders = {number: _netlink() for number in processors}
            _checked(_libc.setns(kept, CLONE_NEWNET))
            _marker(news, kept, gone, holders)
        os.close(kept)
        news.close()
    finally:
        _checked(_libc.setns(home, CLONE_NEWNET))
        os.close(home)


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _close_each_on_its_own(holders: dict[int, socket.socket]) -> None:
    """Close sockets, each on the processor it is listed under."""
    allowed = os.sched_getaffinity(0)
    try:
        for number, holder in holders.items():
            os.sched_setaffinity(0, {number})
            holder.close()
    finally:
        os.sched_setaffinity(0, allowed)


def _marker(news: socket.socket, kept: int, gone: int, holders: dict[int, socket.socket]) -> None:
    """Join two namespaces, let one go, and wait for the news that its interface has gone too."""
    message, first, second = netlink.veth(1, (7, "kept", "", 0), (8, "gone", "", 0))
    request = bytearray(netlink.acknowledged(message))
    struct.pack_into("=i", request, first, kept)
    struct.pack_into("=i", request, second, gone)
    news.send(request)
    os.close(gone)
    _close_each_on_its_own(holders)
    while True:
        answer = news.recv(1 << 16)
        _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
        if kind == 2 and struct.unpack_from("=i", answer, 16)[0]:
            raise OSError(-struct.unpack_from("=i", answer, 16)[0], "marker")
        if kind == netlink.DELLINK and struct.unpack_from("=i", answer, 20)[0] == 7:
            return
