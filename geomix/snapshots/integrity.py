"""Integrity of a snapshot's file: damage, or references to other files, in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from geomix.util.errors import UserError
from geomix.util.hdf5 import reading

_DAMAGE = (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError)
"""Exceptions that h5py and numpy raise on a damaged file."""

_SETTLED = 100_000_000
"""Nanoseconds after which another change of a file has another time, whatever the clock's tick."""

Version = tuple[int, ...]


def version_of(path: Path) -> Version | None:
    """Return what tells a file from any later content of its path; None within 0.1 s of a change.

    Args:
        path: of a file.
    """
    found = path.stat()
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def open_snapshot(path: Path) -> Iterator[Any]:
    """Open a snapshot's file, whatever it holds.

    Raises:
        UserError: the part that is read is damaged.
    """
    try:
        with reading(path) as file:
            yield file
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: damaged, truncated or not HDF5; delete it and record it again ({reason})"
        ) from None


def check_alone(path: Path, file: Any) -> None:
    """Reject a file that would make HDF5 read others: links, external and virtual datasets.

    No link is followed and no number is read. About 40 µs a dataset.

    Args:
        path: the file.
        file: the same file, opened.

    Raises:
        UserError: it names other files, or has links where geomix writes datasets.
    """
    links: dict[bytes, int] = {}

    def visit(name: bytes, link: Any) -> None:
        links[name] = link.type  # raising here would leave h5py's lock in disorder

    file.id.links.visit(visit, info=True)
    for name, kind in links.items():
        if kind != h5py.h5l.TYPE_HARD:
            soft = kind == h5py.h5l.TYPE_SOFT
            raise _foreign(path, name, "a soft link" if soft else "an external link")
    for name in links:
        item = h5py.h5o.open(file.id, name)
        if isinstance(item, h5py.h5d.DatasetID):
            made = item.get_create_plist()
            if made.get_layout() == h5py.h5d.VIRTUAL:
                raise _foreign(path, name, "a virtual dataset")
            if made.get_external_count():
                raise _foreign(path, name, "a dataset with external storage")


def _foreign(path: Path, name: bytes, kind: str) -> UserError:
    return UserError(
        f"{path}: {name.decode(errors='replace')} is {kind}, which geomix never writes: "
        "other files would be read; delete the snapshot and record it again"
    )
