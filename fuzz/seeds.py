"""Write the first inputs of the fuzzers: small captures of every kind, from tests/capture/pcaps.py.

usage: python fuzz/seeds.py [DIRECTORY]     (default: fuzz/grown/pipeline)
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.capture import pcaps  # noqa: E402
from tests.capture.scenes import SCENES  # noqa: E402


def seeds() -> dict[str, bytes]:
    """Return captures of a few hundred to a few thousand octets by name."""
    found: dict[str, bytes] = {}
    for version in (4, 6):
        for name, (linktype, link) in pcaps.LINKS.items():
            packets = [p.cut(150) for p in pcaps.fast_retransmit(link=link, version=version)]
            found[f"link-{name}-{version}"] = pcaps.pcap(packets[:8], linktype=linktype)
    for seed in range(24):
        packets = [p.cut(100) for p in pcaps.chatter(Random(seed), 24)]
        found[f"chatter-{seed}"] = pcaps.pcap(packets, nano=seed % 2 == 0, order="<>"[seed % 2])
        found[f"chatter-ng-{seed}"] = pcaps.pcapng(packets[:12], order="<>"[seed % 2])
    for name, make in SCENES.items():
        data = make()
        if len(data) <= 6000:
            found[f"scene-{name}"] = data
    found["gz"] = gzip.compress(SCENES["handshake-ipv4"](), mtime=0)
    return found


if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "fuzz" / "grown" / "pipeline"
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (directory / name).write_bytes(data)
    print(f"{len(seeds())} seeds in {directory}")
