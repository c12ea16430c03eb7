"""A recording as a directory: `RecordingWriter` fills it, `Recording` reads it.

Whatever happens, what lies on the disk is readable. The manifest is only ever replaced by
rename; the timeline grows by whole lines. A second manifest, the same but for its status
"interrupted", waits beside the first: a full disk cannot take a new file, but it can rename one.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from netlab.errors import DiskFullError, EngineError, RecordingError
from netlab.recording import manifest as manifests
from netlab.recording import timeline as timelines
from netlab.recording.manifest import FileDigest, Manifest
from netlab.recording.ownership import calling_user, hand_over, make_folders
from netlab.recording.timeline import Event, Phase

MANIFEST = "manifest.json"
TIMELINE = "timeline.jsonl"
TOPOLOGY = "topology.resolved.json"
SPARE = ".manifest.interrupted"
PACKED = ".gz"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def _disk(path: Path) -> Generator[None]:
    """Turn a full disk into one sentence that names the recording."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(path) from None


def _full(path: Path) -> DiskFullError:
    hint = "it is marked interrupted; free some space and run again"
    return DiskFullError(f"no space left for the recording {path}", hint=hint)


def full(path: Path) -> bool:
    """Tell whether the disk of a recording has no room to speak of (less than 16 KiB)."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize < 16_384


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} is not a path inside a recording")
    return path


class RecordingWriter:
    """Fills one recording; use as a context manager: what leaves by exception is interrupted."""

    def __init__(
        self, path: Path, manifest: Manifest, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._clock = clock
        self._owner = calling_user(os.environ, os.geteuid())
        self._closed = False
        make_folders(path, self._owner)
        with _disk(path):
            self._write_manifest()

    def file(self, relative: str) -> Path:
        """Return the path for a file of the recording, its folders made."""
        path = self.path / _relative(relative)
        with _disk(self.path):
            make_folders(path.parent, self._owner)
        return path

    def write_text(self, relative: str, text: str) -> Path:
        """Write a whole file at once: after a crash it is there or it is not."""
        path = self.file(relative)
        with _disk(self.path):
            _replace(path, text, self._owner)
        return path

    def event(self, kind: str, *, at_ns: int | None = None, **fields: Any) -> Event:
        """Append an event to the timeline, stamped now unless `at_ns` says when it was."""
        event = Event(self._clock() if at_ns is None else at_ns, kind, fields)
        line = event.line().encode()
        path = self.path / TIMELINE
        with _disk(self.path):
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                while line:
                    line = line[os.write(handle, line) :]
            finally:
                os.close(handle)
        return event

    def note(self, **fields: Any) -> None:
        """Change fields of the manifest, for what is only known once the lab runs."""
        self.manifest = replace(self.manifest, **fields)
        with _disk(self.path):
            self._write_manifest()

    def close(self, *, reason: str = "") -> None:
        """Digest every file and mark the recording complete, or interrupted if `reason` is given.

        Closing twice changes nothing.
        """
        if self._closed:
            return
        self._closed = True
        end = _undone(self.manifest) if reason else replace(self.manifest, status="complete")
        end = replace(end, reason=reason, ended_ns=self._clock())
        try:
            with _disk(self.path):
                self.manifest = replace(end, files=digests(self.path))
                _replace(self.path / MANIFEST, self.manifest.text(), self._owner)
                (self.path / SPARE).unlink(missing_ok=True)
        except DiskFullError:
            self._mark_interrupted()
            raise
        for path in sorted(self.path.rglob("*")):
            hand_over(path, self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: complete after a normal end, interrupted (with the reason) after an exception."""
        if error is None:
            self.close()
            return
        # The first error is the one to report; the spare manifest has marked the recording anyway.
        with contextlib.suppress(DiskFullError):
            self.close(reason=str(error).split("\n")[0] or type(error).__name__)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _full(self.path) from None
        if (
            isinstance(error, EngineError)
            and not isinstance(error, DiskFullError)
            and full(self.path)
        ):
            raise _full(self.path) from error

    def _write_manifest(self) -> None:
        spare = replace(_undone(self.manifest), reason="the disk was full")
        try:
            # The spare first: where there is room for one of them alone, "interrupted" is true.
            _replace(self.path / SPARE, spare.text(), self._owner)
            _replace(self.path / MANIFEST, self.manifest.text(), self._owner)
        except OSError:
            self._mark_interrupted()
            raise

    def _mark_interrupted(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / SPARE).rename(self.path / MANIFEST)


class Recording:
    """Read-only view of a recording."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @staticmethod
    def create(
        root: Path,
        lab: str,
        variation: str | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        **fields: Any,
    ) -> RecordingWriter:
        """Make `root`/LAB/RUN with a name of its own, point `latest` at it, and return its writer.

        `fields` go into the manifest as they are.
        """
        path = new_run(root, lab, variation or "", now_ns=clock())
        return Recording.create_at(path, lab, variation, clock=clock, **fields)

    @staticmethod
    def create_at(
        path: Path,
        lab: str,
        variation: str | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        **fields: Any,
    ) -> RecordingWriter:
        """Make a recording at exactly `path`, which must not hold one yet."""
        if (path / MANIFEST).exists():
            raise RecordingError(f"{path} already holds a recording")
        run = path.parent.name if variation and path.name == variation else path.name
        manifest = Manifest(
            run=run, lab=lab, variation=variation, started_ns=clock(), **_provenance(), **fields
        )
        return RecordingWriter(path, manifest, clock=clock)

    @staticmethod
    def open(path: Path) -> Recording:
        """Open a recording; RecordingError in one sentence for anything that is not one."""
        if path.name == MANIFEST:
            path = path.parent
        if not path.exists():
            raise RecordingError(f"there is no recording at {path}")
        if not path.is_dir():
            raise RecordingError(f"{path} is a file; a recording is a directory")
        file = path / MANIFEST
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecordingError(f"{path} is not a recording: it has no {MANIFEST}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecordingError(f"{file} cannot be read: {error}") from None
        try:
            return Recording(path, manifests.parse(text))
        except ValueError as error:
            raise RecordingError(f"{file}: {error}") from None

    @property
    def complete(self) -> bool:
        """True when the run that made it reached its end."""
        return self.manifest.complete

    def file(self, relative: str) -> Path:
        """Return the path of a file that is there; RecordingError if it is not.

        In a recording that was kept a file may be compressed, and its path end in ".gz". Captures
        are read as they are; text is read by `text`.
        """
        path = self.path / _relative(relative)
        packed = path.with_name(path.name + PACKED)
        if path.is_file():
            return path
        if packed.is_file():
            return packed
        raise RecordingError(f"the recording {self.path.name} has no {relative}")

    def text(self, relative: str) -> str:
        """Return what a text file says; RecordingError if it is not there or damaged."""
        path = self.file(relative)
        try:
            if path.suffix == PACKED:
                with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
                    return file.read()
            return path.read_text(encoding="utf-8", errors="replace")
        except (OSError, EOFError, zlib.error) as error:
            raise RecordingError(f"{path} cannot be read: {error}") from None

    def has(self, relative: str) -> bool:
        """Tell whether a file is there, compressed or not."""
        path = self.path / _relative(relative)
        return path.is_file() or path.with_name(path.name + PACKED).is_file()

    def files(self, pattern: str) -> tuple[str, ...]:
        """Return the names that match a glob pattern, relative to the recording, sorted.

        Compressed files go by the name they had before.
        """
        found = [*self.path.glob(pattern), *self.path.glob(pattern + PACKED)]
        names = {str(p.relative_to(self.path)).removesuffix(PACKED) for p in found if p.is_file()}
        return tuple(sorted(names))

    def timeline(self) -> tuple[Event, ...]:
        """Return what happened, in order; empty when nothing was noted."""
        path = self.path / TIMELINE
        if not path.exists():
            return ()
        try:
            return timelines.parse(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise RecordingError(f"{path}: {error}") from None

    def phases(self) -> tuple[Phase, ...]:
        """Return the phases of the run in the order in which they began."""
        return timelines.phases(self.timeline())

    def damaged(self) -> tuple[str, ...]:
        """Return the files that are missing or no longer have the digest they were closed with."""
        changed: list[str] = []
        for name, digest in self.manifest.files.items():
            path = self.path / name
            if not path.is_file() or _digest(path) != digest:
                changed.append(name)
        return tuple(changed)


def mark_interrupted(path: Path, reason: str) -> None:
    """Mark a recording that its writer left behind as interrupted; a finished one stays so."""
    if (path / MANIFEST).exists():
        manifest = Recording.open(path).manifest
        if manifest.status != "running":
            return
        try:
            write_file(path / MANIFEST, replace(_undone(manifest), reason=reason).text())
        except DiskFullError:
            if not (path / SPARE).exists():
                raise
            (path / SPARE).rename(path / MANIFEST)


def _undone(manifest: Manifest) -> Manifest:
    """Return the manifest of a run that did not come to its end; nobody vouches for what it saw."""
    return replace(manifest, status="interrupted", fidelity="unknown", fidelity_reasons=())


def write_file(path: Path, text: str) -> None:
    """Write a whole file beside recordings, such as `checks.json`; owned by the calling user."""
    with _disk(path.parent):
        _replace(path, text, calling_user(os.environ, os.geteuid()))


def new_run(root: Path, lab: str, suffix: str = "", *, now_ns: int) -> Path:
    """Make an empty folder `root`/LAB/TIME[-suffix] that nobody else has; point `latest` at it."""
    owner = calling_user(os.environ, os.geteuid())
    folder = root / lab
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns // 1_000_000_000))
    name = "-".join(part for part in (stamp, suffix) if part)
    with _disk(folder):
        make_folders(folder, owner)
        path = _first_free(folder, name)
        hand_over(path, owner)
        link = folder / f".latest-{path.name}"
        link.symlink_to(path.name)
        hand_over(link, owner)
        link.rename(folder / "latest")
    return path


def _first_free(folder: Path, name: str) -> Path:
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _provenance() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        netlab = version("netlab-tcpip")
    except PackageNotFoundError:
        netlab = "unknown"
    system = os.uname()
    return {"netlab": netlab, "kernel": system.release, "machine": system.machine}


def _replace(path: Path, text: str, owner: tuple[int, int] | None) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        hand_over(fresh, owner)
        fresh.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def digests(folder: Path) -> dict[str, FileDigest]:
    """Return the digest of every file of a recording but its manifest."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    names = ((str(path.relative_to(folder)), path) for path in files)
    return {name: _digest(path) for name, path in names if name not in {MANIFEST, SPARE}}
