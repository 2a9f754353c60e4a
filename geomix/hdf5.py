"""HDF5 files with labelled axes, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomix.atomic import written_file

_BLOCK = 1 << 20  # bytes of a chunk: whole rows, so that one example is one short read
_SPARE = 1 << 22  # bytes that HDF5 takes for its own trees


@contextmanager
def written_hdf5(
    path: Path, room: int = 0, large: Callable[[Any], None] | None = None
) -> Iterator[Any]:
    """Give an HDF5 file to fill; on success write it atomically, its attribute `complete` last.

    The file is made in memory: where HDF5 itself meets a full disk, it takes the process down. What
    is too large for that is added on the disk, where room for it has been taken beforehand.

    Args:
        path: of the file.
        room: bytes of the numbers that `large` adds.
        large: adds them to the file.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        yield file
        if large is None:
            file.flush()
            file.attrs["complete"] = True
        file.flush()
        image = file.id.get_file_image()
    with written_file(path) as partial:
        partial.write_bytes(image)
        if large is not None:
            with partial.open("r+b") as raw:
                os.posix_fallocate(raw.fileno(), len(image), room + room // 32 + _SPARE)
            with h5py.File(partial, "r+") as file:
                large(file)
                file.flush()
                file.attrs["complete"] = True


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a finished file, which never changes.

    Without a lock, which some cluster file systems lack; but as it is open already, where this
    process has it open with one, since HDF5 refuses to mix the two.
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
    """A dimension and its coordinate.

    Numbers carry a checksum; texts, whose lengths vary, cannot: HDF5 keeps them in a heap that no
    filter sees.
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
    """A dataset with its dimensions attached, in chunks of whole rows."""
    data = _storable(values)
    dataset = group.create_dataset(name, data=data, **_chunked(data))
    dataset.attrs["units"] = units
    dataset.attrs["description"] = text
    for axis, dimension in enumerate(dimensions):
        dataset.dims[axis].attach_scale(group[dimension])
    return dataset


def _chunked(data: NDArray[Any] | list[str]) -> dict[str, Any]:
    """Options of a dataset of numbers: chunks of whole rows, each with a Fletcher-32 checksum."""
    if not isinstance(data, np.ndarray) or not data.size or not data.ndim:
        return {}
    most = max(1, _BLOCK // (data.nbytes // len(data)))
    pieces = -(-len(data) // most)
    rows = -(-len(data) // pieces)  # even ones: every chunk is stored in full
    return {"chunks": (rows, *data.shape[1:]), "fletcher32": True}


def _storable(values: NDArray[Any] | Sequence[str]) -> NDArray[Any] | list[str]:
    return values if isinstance(values, np.ndarray) else list(values)


def strings(dataset: Any) -> tuple[str, ...]:
    """A dataset of texts."""
    return tuple(dataset.asstr()[:])


def expect(group: Any, kinds: str, **shapes: tuple[int, ...]) -> None:
    """Check datasets that a file brings.

    Args:
        group: holds them.
        kinds: numpy's letters of the kinds of number or text that each may be.
        shapes: the shape of each by its name.

    Raises:
        ValueError: one has another kind or shape.
    """
    for name, shape in shapes.items():
        found = group[name]
        if found.shape != shape or found.dtype.kind not in kinds:
            raise ValueError(f"{found.name}: {found.dtype} {found.shape} where {shape} belongs")
