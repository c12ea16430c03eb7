"""Whose files a recording's are: the calling user's, also under sudo."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def calling_user(environment: Mapping[str, str], effective_uid: int) -> tuple[int, int] | None:
    """Return (uid, gid) of the user behind sudo, or None when nothing needs to change hands."""
    if effective_uid != 0:
        return None
    try:
        uid, gid = int(environment["SUDO_UID"]), int(environment["SUDO_GID"])
    except (KeyError, ValueError):
        return None
    return (uid, gid) if uid > 0 and gid >= 0 else None


def hand_over(path: Path, owner: tuple[int, int] | None) -> None:
    """Give `path` to `owner`, never following a symbolic link; nothing to do for None."""
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def make_folders(path: Path, owner: tuple[int, int] | None) -> None:
    """Make a folder and those above it that are missing, each owned by `owner`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        hand_over(folder, owner)
