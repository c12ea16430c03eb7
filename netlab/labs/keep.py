"""Keep a run as the recording that comes with a lab: small, and free of one machine's paths.

What is kept are the variations and `checks.json`, not the planted faults. Paths of this machine
(Python, netlab, the run's own folder) are replaced in text files and the digests made anew, so a
kept recording is as whole as a fresh one. To be small it does without what no check looks at: the
journals of wires, what tcpdump said of itself, `junit.xml`; JSON loses its blanks, large files are
compressed, and packets are cut behind their headers. The checks, figures and claims decide about
the last: where one of them says something else afterwards, the packets stay whole.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from netlab import resources
from netlab.analysis.evidence import Evidence
from netlab.errors import NetlabError, UsageError
from netlab.labs import guide, judge
from netlab.labs.lab import Lab
from netlab.recording import Recording
from netlab.recording.directory import MANIFEST, PACKED, TOPOLOGY, digests, write_file

TEXT = {".json", ".jsonl", ".log", ".txt", ".xml"}
LARGEST = 100_000
"""Bytes of a kept recording, all files together."""
UNREAD = (
    *("wire/*.journal", "nodes/*/tcpdump-*", "nodes/*.wire/*", "nodes/*/*.json"),
    *("machine/*.std*.log", "junit.xml"),
)
"""What no check looks at, by its place in a run or in a variation."""
PACKS = (
    *("captures/*.pcap", "snapshots/*.txt", "tcp_info/*.jsonl", "counters/*.txt"),
    *("nodes/*/*.log", "machine/*.jsonl", "wire/*.json", TOPOLOGY),
)
"""What readers find compressed too, where it is larger than `WORTH` bytes."""
WORTH = 400
SNAPLEN = 128
"""Ethernet, IPv6 and the longest TCP header take 14 + 40 + 60 octets."""
_NANO, _MICRO = 0xA1B23C4D, 0xA1B2C3D4


def keep(lab: Lab, run: Path, target: Path, *, replace_existing: bool = False) -> int:
    """Copy a run to `target` and return its size in bytes; UsageError if it is too large."""
    judge.open_run(run)
    if not (run / judge.CHECKS).is_file():
        raise UsageError(f"{run} is one recording; name the folder of the whole run")
    if target.exists() and not replace_existing:
        raise UsageError(f"{target} exists", hint="say --replace")
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run.resolve(), fresh, ignore=shutil.ignore_patterns("faults", "latest"))
    try:
        size = _shrink(lab, run, fresh)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return size


def _shrink(lab: Lab, run: Path, folder: Path) -> int:
    """Make a copied run small and nobody's; return its size, UsageError if it is still large."""
    for pattern in UNREAD:
        for path in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]:
            path.unlink()
    for path in folder.glob("*/nodes/*/*.stderr.log"):
        if path.stat().st_size == 0:
            path.unlink()
    _disguise(run, folder)
    _shorten(folder / judge.CHECKS)
    _digest(folder)
    said = _said(lab, folder)
    whole = {path: path.read_bytes() for path in folder.glob("*/captures/*.pcap")}
    for path, content in whole.items():
        path.write_bytes(cut(content, SNAPLEN))
    if not _says(lab, folder, said):
        for path, content in whole.items():
            path.write_bytes(content)
    for pattern in PACKS:
        for path in folder.glob(f"*/{pattern}"):
            if path.stat().st_size > WORTH:
                packed = path.with_name(path.name + PACKED)
                packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
                path.unlink()
    _digest(folder)
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if not _says(lab, folder, said):
        raise UsageError(f"{run} cannot be kept: its checks say something else when it is packed")
    size = sum(sizes.values())
    if size > LARGEST:
        largest = max(sizes, key=lambda path: sizes[path])
        raise UsageError(
            f"{run} has {size:,} bytes when it is packed, and a recording that is kept has "
            f"{LARGEST:,} at most",
            hint=f"the largest file is {largest.relative_to(folder)} with {sizes[largest]:,}",
        )
    return size


def _disguise(run: Path, folder: Path) -> None:
    """Replace the paths of this machine, and leave out the blanks of JSON."""
    places = _places(run)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TEXT and path.name != MANIFEST:
            text = path.read_text(encoding="utf-8")
            for old, new in places:
                text = text.replace(old, new)
            write_file(path, _compact(text) if path.suffix == ".json" else text)


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) + "\n"
    except ValueError:
        return text


def _shorten(path: Path) -> None:
    """Leave out of a `checks.json` what only programs read: whoever needs that judges again."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for check in record.get("checks", ()):
        check["verdict"] = {key: said for key, said in check["verdict"].items() if said}
        check["verdict"]["value"] = None
    write_file(path, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def _digest(folder: Path) -> None:
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        recording = Recording.open(manifest.parent)
        text = replace(recording.manifest, files=digests(recording.path)).text()
        write_file(manifest, _compact(text))


def _said(lab: Lab, folder: Path) -> object:
    """Return what checks, figures and claims say of a run, to be compared."""
    _, recordings, skipped = judge.open_run(folder)
    checks = [
        (c.check, c.variations, c.verdict.outcome, c.verdict.observed, c.verdict.reason)
        for c in judge.judge(lab, recordings, skipped)
    ]
    rulings: list[object] = []
    for number, function in lab.claims.items():
        wanted = lab.parameters(function, function.__name__)
        if all(name in recordings for name in wanted):
            try:
                rulings.append(function(*(Evidence(recordings[name]) for name in wanted)))
            except NetlabError as error:
                rulings.append((number, str(error)))
    return checks, guide.measure(lab, recordings), rulings


def _says(lab: Lab, folder: Path, said: object) -> bool:
    """Tell whether a run says what it said; a check that trips over what is missing does not."""
    try:
        return _said(lab, folder) == said
    except Exception:
        return False


def cut(content: bytes, snaplen: int) -> bytes:
    """Return a pcap file with at most `snaplen` octets of each packet; any other file as it is."""
    for order in "<>":
        if len(content) >= 24 and struct.unpack_from(f"{order}I", content)[0] in (_NANO, _MICRO):
            return _cut(content, snaplen, order)
    return content


def _cut(content: bytes, snaplen: int, order: str) -> bytes:
    parts = [content[:16], struct.pack(f"{order}I", snaplen), content[20:24]]
    place = 24
    while place + 16 <= len(content):
        seconds, fraction, kept, length = struct.unpack_from(f"{order}4I", content, place)
        data = content[place + 16 : place + 16 + min(kept, snaplen)]
        parts += [struct.pack(f"{order}4I", seconds, fraction, len(data), length), data]
        place += 16 + kept
    return b"".join(parts)


def _places(run: Path) -> tuple[tuple[str, str], ...]:
    """Return what to replace, the longest first."""
    package = resources.DATA.parent
    found = {
        str(run.resolve()): "RUN",
        str(run.absolute()): "RUN",
        str(package): "netlab",
        sys.executable: "python3",
        str(Path(sys.executable).resolve()): "python3",
        str(Path.home()): "HOME",
    }
    return tuple(sorted(found.items(), key=lambda pair: -len(pair[0])))
