"""netlab's own engine, from a finished plan to the last acknowledgement.

usage: with_netlab.py KIND N same|default; `same` builds the end state of the other methods,
`default` what netlab builds when left to itself. The supervisor is there before the clock starts:
`netlab up` starts it while it still plans. Output as of with_ip_batch.py.
"""

from __future__ import annotations

import sys
import tempfile
import time

import network

from netlab.engine import state, supervisor


def main() -> None:
    net = network.make(sys.argv[1], int(sys.argv[2]))
    plan = network.as_plan(net) if sys.argv[3] == "same" else network.as_default_plan(net)
    with tempfile.TemporaryDirectory() as folder:
        held = state.claim(f"{folder}/lab")
        assert held is not None
        started = supervisor.start(held, "bench", foreground=True, rootless=None)
        started.channel.request({"do": "clock"})
        began = time.perf_counter()
        started.build(plan)
        print(f"{time.perf_counter() - began:.6f}", flush=True)
        sys.stdin.read()
        began = time.perf_counter()
        started.end(60)
        print(f"{time.perf_counter() - began:.6f}", flush=True)


main()
