"""A folder that appears once it is complete; after a kill the same command makes it again.

It is filled under `NAME.partial`, which holds a marker from the start: by the marker geomix
recognises its own, and leaves a user's folder of that name alone. The marker is removed once the
folder has its final name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geomix.util.errors import UserError
from geomix.util.files import PARTIAL, sync

MARKER = ".geomix-unfinished"
"""Name of the file that marks an unfinished folder; it records the folder's purpose."""


def make_folder(folder: Path, purpose: Mapping[str, Any], fill: Callable[[Path], object]) -> None:
    """Fill a new folder, or finish one that a killed process of the same purpose left.

    Args:
        folder: the new one.
        purpose: what decides its contents, as JSON can hold it.
        fill: called with the empty folder under its temporary name.

    Raises:
        UserError: the folder exists, or something of a user's is in the way.
    """
    if os.path.lexists(folder):  # a dangling link, too
        if not _is_complete(folder, purpose):
            raise UserError(f"{folder}: there already; name a folder that is not there yet")
        (folder / MARKER).unlink()
        return
    partial = folder.with_name(folder.name + PARTIAL)
    if os.path.lexists(partial) and not _is_own(partial):
        raise UserError(
            f"{partial}: in the way, and not geomix's own; move it, or name another folder"
        )
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / MARKER).open("a+", encoding="utf-8") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing it") from None
        try:
            _empty(partial)
            marker.truncate(0)
            marker.write(json.dumps(purpose))
            marker.flush()
            fill(partial)
            for file in [*sorted(partial.rglob("*")), partial]:
                sync(file)
            partial.rename(folder)
        except BaseException:
            _empty(partial)
            (partial / MARKER).unlink()
            partial.rmdir()
            raise
    sync(folder.parent)
    (folder / MARKER).unlink()


def _is_complete(folder: Path, purpose: Mapping[str, Any]) -> bool:
    """Return whether everything is there and only the marker remains to be removed."""
    try:
        return not folder.is_symlink() and bool(
            json.loads((folder / MARKER).read_bytes()) == json.loads(json.dumps(purpose))
        )
    except (OSError, ValueError):
        return False


def _is_own(partial: Path) -> bool:
    """Return whether geomix began the folder; an empty one holds nothing to lose."""
    if partial.is_symlink() or not partial.is_dir():
        return False
    marker = partial / MARKER
    return not any(partial.iterdir()) or (marker.is_file() and not marker.is_symlink())


def _empty(folder: Path) -> None:
    """Remove all but the marker, which identifies the folder as geomix's."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
