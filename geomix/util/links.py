"""Files that are opened as themselves, never through a link.

A run unpacked from an archive may hold symbolic links, hard links or pipes in place of its files.
Files that geomix writes anew replace them (`geomix.util.files`); files that it locks, appends to or
truncates are opened here, and links are rejected. Reading may follow links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geomix.util.errors import UserError

_OWN = ("stages", "records", "analysis", "figures")
"""Folders of a run, or of an arm, that hold nothing but what geomix writes."""


def open_lock(path: Path) -> int:
    """Open a file that serves only as a lock, creating it if needed; return its descriptor.

    Raises:
        UserError: it is a link, or not a regular file.
    """
    return _opened(path, os.O_RDWR | os.O_CREAT)


@contextmanager
def opened_to_append(path: Path) -> Iterator[int]:
    """Open a file to append to, creating it if needed.

    Raises:
        UserError: it is a link, or not a regular file, or has a second name (hard link).
    """
    with _only_name(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
        yield descriptor


def shorten(path: Path, size: int) -> None:
    """Truncate a file after its first `size` bytes; raises as `opened_to_append` does."""
    with _only_name(path, os.O_WRONLY) as descriptor:
        os.ftruncate(descriptor, size)


@contextmanager
def _only_name(path: Path, flags: int) -> Iterator[int]:
    descriptor = _opened(path, flags)
    try:
        if os.fstat(descriptor).st_nlink > 1:
            raise UserError(
                f"{path}: a hard link: the file has another name too, and would change there; "
                "put a copy in its place"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int) -> int:
    # O_NONBLOCK: opening a pipe would wait for its writer
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise UserError(_rejection(path)) from None
        if error.errno == errno.ENXIO:  # a pipe that nobody reads
            raise UserError(f"{path}: no ordinary file; remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: no ordinary file; remove it")
    return descriptor


def _rejection(path: Path) -> str:
    return f"{path}: a link; nothing is written through it: put what it leads to in its place"


def reject_linked_folders(run: Path) -> None:
    """Reject links in place of folders that geomix writes into.

    The run's own folder may be reached through links. Within `trackers`, only the trackers' own
    folders are checked: some keep links within.

    Args:
        run: folder of a run or of an arm.

    Raises:
        UserError: one is a link; it is named.
    """
    reject_links((run / name for name in (*_OWN, "trackers", "arms")), folders=True)
    for name in _OWN:
        for folder, inside, _ in os.walk(run / name):
            reject_links((Path(folder, each) for each in inside), folders=True)
    reject_links(_inside(run / "trackers"), folders=True)
    for arm in _inside(run / "arms"):
        reject_links([arm], folders=True)
        if arm.is_dir():
            reject_linked_folders(arm)


def reject_links(paths: Iterable[Path], *, folders: bool = False) -> None:
    """Reject links.

    Args:
        paths: those to check; they need not exist.
        folders: whether links to files pass: those are replaced, not followed.

    Raises:
        UserError: one is a link; it is named.
    """
    for path in paths:
        if path.is_symlink() and not (folders and path.is_file()):
            raise UserError(_rejection(path))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
