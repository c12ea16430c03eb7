"""Changes the impairments of links at given times: runs in the middle node of a link.

A single file for `python3 -I -S`, standard library only. Standard input holds JSON, a list of
`[seconds after the start, what it is called, [requests]]` in the order of time; a request is an
rtnetlink message in hexadecimal that asks for an acknowledgement. Each change prints one line of
JSON: `at` (asked, s), `what`, `time_ns` (when it was done, CLOCK_REALTIME), `late` (s), `errno` (0
when the kernel took every request). Times count from the argument, an instant of CLOCK_MONOTONIC in
seconds; without one, from when this program has read its input.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time


def ask(route: socket.socket, request: bytes) -> int:
    """Send one request; return the kernel's error number."""
    route.send(request)
    answer = route.recv(1 << 16)
    return -struct.unpack_from("=i", answer, 16)[0]


def main() -> int:
    """Follow the timetable to its end; 1 if the kernel refused a change."""
    rows = json.load(sys.stdin)
    start = float(sys.argv[1]) if len(sys.argv) > 1 else time.monotonic()
    refused = False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        for at, what, requests in rows:
            pause = start + at - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            errors = [ask(route, bytes.fromhex(request)) for request in requests]
            done = {
                "at": at,
                "what": what,
                "time_ns": time.clock_gettime_ns(time.CLOCK_REALTIME),
                "late": round(time.monotonic() - start - at, 6),
                "errno": next((error for error in errors if error), 0),
            }
            refused = refused or bool(done["errno"])
            print(json.dumps(done), flush=True)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
