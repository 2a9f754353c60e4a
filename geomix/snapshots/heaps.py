"""Detection of a corrupted HDF5 global heap on which libhdf5 would loop forever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py

from geomix.util.errors import UserError

_MAGIC = b"GCOL\x01\0\0\0"
_HEADER = 16  # bytes before a heap's first object, and of each object's own header


def check_heaps(path: Path, file: Any) -> None:
    """Reject a heap with a free object of zero bytes, on which HDF5 (seen in 2.0) loops forever.

    Heaps hold texts, have no checksum, and are read with the first text. HDF5 does not report their
    location, so every byte range without numbers is searched. Layout: section III.E, "Global Heap",
    of the HDF5 file format specification.

    Args:
        path: the file.
        file: the same file, opened.

    Raises:
        UserError: there is one.
    """
    with path.open("rb") as raw:
        whole = path.stat().st_size
        for start, end in _between(_numbers(file), whole):
            raw.seek(start)
            found = raw.read(end - start)
            at = found.find(_MAGIC)
            while at >= 0:
                raw.seek(start + at)  # a damaged size leads beyond `found`, into the numbers
                size = int.from_bytes(found[at + 8 : at + _HEADER], "little")
                if not _ends(raw.read(min(size, whole))):
                    raise UserError(
                        f"{path}: damaged, a heap of its texts at byte {start + at} does not end; "
                        "delete it and record it again"
                    )
                at = found.find(_MAGIC, at + 1)


def _numbers(file: Any) -> list[tuple[int, int]]:
    """Return the first byte and length of all chunks of datasets."""
    found: list[tuple[int, int]] = []
    names: list[bytes] = []
    file.id.links.visit(names.append)
    for name in names:
        item = h5py.h5o.open(file.id, name)
        numbers = isinstance(item, h5py.h5d.DatasetID)
        if numbers and item.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
            item.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.size)))
    return found


def _between(held: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of a file that are not held, as `(start, end)`."""
    start = 0
    for first, length in sorted(held):
        if first > start:
            yield start, first
        start = max(start, first + length)
    if start < size:
        yield start, size


def _ends(heap: bytes) -> bool:
    """Return whether a walk from object to object, as in HDF5, reaches the heap's end."""
    at = _HEADER
    while at + _HEADER <= len(heap):
        index = int.from_bytes(heap[at : at + 2], "little")
        length = int.from_bytes(heap[at + 8 : at + 16], "little")
        step = _HEADER + -(-length // 8) * 8 if index else length  # free space has index 0
        if not step:
            return False
        at += step
    return True
