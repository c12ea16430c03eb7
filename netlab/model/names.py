"""What may be a name: of a node, a link, an interface, a sysctl. Each check returns a complaint."""

from __future__ import annotations

import re

MAX_NAME = 63  # a host name label, RFC 1035 §2.3.4
MAX_LINK = 200  # "a-b-c" with three longest names; a file name must hold it too
MAX_INTERFACE = 15  # IFNAMSIZ of the kernel, less the final NUL

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DOTTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SYSCTL = re.compile(r"[a-z][a-z0-9_]*(?:\.[A-Za-z0-9_-]+){2,7}")


def bad_name(name: str, *, dots: bool = False) -> str:
    """Return what is wrong with the name of a node or (with dots) of a link, or nothing."""
    if not name:
        return "is empty"
    longest = MAX_LINK if dots else MAX_NAME
    if len(name) > longest:
        return f"is {len(name)} characters long; at most {longest} are possible"
    if not (_DOTTED if dots else _NAME).fullmatch(name):
        allowed = "letters, digits, '-', '_'" + (" and '.'" if dots else "")
        return f"may only have {allowed}, and begins with a letter or digit"
    if name.endswith(".lan") or name.endswith(".wire"):
        return "may not end in '.lan' or '.wire': those are names netlab gives"
    return ""


def bad_interface_name(name: str) -> str:
    """Return what is wrong with the name of an interface, or nothing."""
    if not name:
        return "is empty"
    if len(name) > MAX_INTERFACE:
        return f"is {len(name)} characters long; the kernel allows {MAX_INTERFACE}"
    if not _INTERFACE.fullmatch(name):
        return "may only have letters, digits, '-' and '_', and begins with a letter"
    if name in ("lo", "all", "default"):
        return "has a meaning of its own in the kernel"
    return ""


def bad_sysctl(key: str) -> str:
    """Return what is wrong with a sysctl key, or nothing; whether it exists the kernel knows."""
    if "/" in key:
        return "is written with dots, not slashes, such as 'net.ipv4.ip_forward'"
    if not key.startswith("net."):
        return "does not begin with 'net.'; other sysctls belong to the whole machine"
    if not _SYSCTL.fullmatch(key):
        return "is not a sysctl key such as 'net.ipv4.tcp_sack'"
    return ""
