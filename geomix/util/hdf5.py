"""HDF5 files with labelled axes, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomix.util.files import written_file

_BLOCK = 1 << 20  # bytes of a chunk: whole rows, so that reading one example is one short read
_SPARE = 1 << 22  # bytes reserved for HDF5's own trees
_METADATA = ("v110", "v110")  # of HDF5 1.10 (2016), the first whose metadata have checksums

TEXTS = "texts_sha256"
"""Attribute of a file: its `text_hash` when it was written."""


@contextmanager
def written_hdf5(
    path: Path, room: int = 0, large: Callable[[Any], None] | None = None
) -> Iterator[Any]:
    """Yield an HDF5 file to fill; on success write it atomically, its attribute `complete` last.

    The file is built in memory, because HDF5 aborts the process when it meets a full disk. Data too
    large for memory is added on disk, after its space has been reserved.

    Args:
        path: of the file.
        room: bytes of the numbers that `large` adds.
        large: adds them to the file.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    with h5py.File(path, "w", driver="core", backing_store=False, libver=_METADATA) as file:
        yield file
        if large is None:
            _complete(file)
        file.flush()
        image = file.id.get_file_image()
    with written_file(path) as partial:
        partial.write_bytes(image)
        if large is not None:
            with partial.open("r+b") as raw:
                os.posix_fallocate(raw.fileno(), len(image), room + room // 32 + _SPARE)
            with h5py.File(partial, "r+", libver=_METADATA) as file:
                large(file)
                _complete(file)


def _complete(file: Any) -> None:
    file.attrs[TEXTS] = text_hash(file)
    file.flush()
    file.attrs["complete"] = True


def text_hash(file: Any) -> str:
    """Return the SHA-256 of all texts of a file, attributes too, and of its dimension scales.

    HDF5 keeps strings of variable length in a heap without checksums: one flipped bit there could
    rename a parameter, or give an axis another axis's coordinates.

    Args:
        file: `h5py.File`.
    """
    names: list[str] = []
    file.visit(names.append)
    items = {name: file[name] for name in ("/", *sorted(names))}
    names_by_offset = {_offset(item): name for name, item in items.items()}
    digest = hashlib.sha256()
    for name, item in items.items():
        found = {
            key: _texts(file, names_by_offset, item.attrs[key])
            for key in item.attrs.keys() - _APART
        }
        if isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype):
            found[""] = list(strings(item)) if item.ndim else [item.asstr()[()]]
        known = {key: texts for key, texts in found.items() if texts}
        digest.update(json.dumps([name, known], sort_keys=True).encode())
    return digest.hexdigest()


_APART = {TEXTS, "complete", "CLASS", "NAME", "REFERENCE_LIST"}
"""Attributes that are written later, and those of HDF5's dimension scales that have checksums."""


def _offset(item: Any) -> int:
    """Return an object's address in its file; asking HDF5 for its name takes 40 times as long."""
    return int(h5py.h5o.get_info(item.id).addr)


def _texts(file: Any, names_by_offset: dict[int, str], value: Any) -> list[str]:
    """Return the texts in an attribute's value, with references as the names that they lead to."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return []
    items = [each for one in value.flat for each in (one if isinstance(one, np.ndarray) else [one])]
    return [
        names_by_offset[_offset(file[one])] if isinstance(one, h5py.Reference) else str(one)
        for one in items
    ]


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a finished file, which never changes.

    It is opened without a lock, which some cluster file systems lack; with one if this process
    already holds it open with a lock, since HDF5 rejects a mix of the two.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        file = h5py.File(path, "r")
    with file:
        yield file


def scale(group: Any, name: str, values: NDArray[Any] | Sequence[str], description: str) -> None:
    """Write a dimension and its coordinate.

    Numbers carry a checksum; for texts, see `text_hash`.
    """
    data = _storable(values)
    dataset = group.create_dataset(name, data=data, **_chunked(data))
    dataset.attrs["description"] = description
    dataset.make_scale(name)


def put(
    group: Any,
    name: str,
    values: NDArray[Any] | Sequence[str],
    dimensions: tuple[str, ...],
    *,
    units: str,
    text: str,
) -> Any:
    """Write a dataset with its dimensions attached, in chunks of whole rows."""
    data = _storable(values)
    dataset = group.create_dataset(name, data=data, **_chunked(data))
    dataset.attrs["units"] = units
    dataset.attrs["description"] = text
    for axis, dimension in enumerate(dimensions):
        dataset.dims[axis].attach_scale(group[dimension])
    return dataset


def _chunked(data: NDArray[Any] | list[str]) -> dict[str, Any]:
    """Return a numeric dataset's options: chunks of whole rows, each with a Fletcher-32 sum."""
    if not isinstance(data, np.ndarray) or not data.size or not data.ndim:
        return {}
    most = max(1, _BLOCK // (data.nbytes // len(data)))
    chunks = -(-len(data) // most)
    rows = -(-len(data) // chunks)  # equally long, since every chunk is stored in full
    return {"chunks": (rows, *data.shape[1:]), "fletcher32": True}


def _storable(values: NDArray[Any] | Sequence[str]) -> NDArray[Any] | list[str]:
    return values if isinstance(values, np.ndarray) else list(values)


def strings(dataset: Any) -> tuple[str, ...]:
    """Read a dataset of texts."""
    return tuple(dataset.asstr()[:])


def expect(group: Any, kinds: str, **shapes: tuple[int, ...]) -> None:
    """Validate the kind and shape of a file's datasets.

    Args:
        group: group that holds them.
        kinds: numpy's letters of the kinds of number or text that each may be.
        shapes: the shape of each by its name.

    Raises:
        ValueError: one has another kind or shape.
    """
    for name, shape in shapes.items():
        found = group[name]
        if found.shape != shape or found.dtype.kind not in kinds:
            raise ValueError(f"{found.name}: {found.dtype} {found.shape} where {shape} belongs")
