"""Contents of a snapshot file as labelled arrays, read lazily.

This module is independent of the stored variables: any group of datasets with dimension scales
becomes an xarray Dataset, each scale a coordinate. A file is open only while it is being read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from geomix.snapshots.file import read_snapshot
from geomix.snapshots.integrity import open_snapshot
from geomix.snapshots.versions import LAYER, layer_numbers
from geomix.util.errors import UserError

if TYPE_CHECKING:
    from xarray.core.indexing import ExplicitIndexer

_LAYERS = "/parameters/layer"
"""Dataset whose meaning depends on the schema."""

_HIDDEN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid")
"""Attributes with which HDF5 itself manages dimension scales."""


@dataclass(frozen=True, slots=True)
class Described:
    """A dataset without its numbers.

    Attributes:
        dims: its dimensions' names.
        shape: their lengths.
        dtype: of the values as read: texts are `object`, flags `bool`.
        attrs: its attributes: units, description and anything else from the recorder.
        values: of a coordinate; None for any other dataset, which is read lazily.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: dict[str, Any]
    values: NDArray[Any] | None


def group_of(path: Path, group: str) -> dict[str, Described]:
    """Return the datasets of one group of a snapshot, without their numbers; none if it is missing.

    Raises:
        UserError: the file is not a snapshot that this version reads (`store.read_snapshot`).
    """
    return _group(*_state(path), group)


def groups_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the attributes of every group of a snapshot, by its path; those of the file under "".

    Raises:
        UserError: as in `group_of`.
    """
    with opened(path) as file:
        found = {"": _attributes(file)}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group):
                found[name] = _attributes(item)

        file.visititems(visit)
    return found


def datasets_of(path: Path) -> dict[str, Described]:
    """Return every dataset of a snapshot, coordinates included, by its path.

    Raises:
        UserError: as in `group_of`.
    """
    return {
        f"{group}/{name}": one
        for group in groups_of(path)
        for name, one in group_of(path, group).items()
    }


def attributes_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the attributes of every group and every dataset of a snapshot, by its path.

    Raises:
        UserError: as in `group_of`.
    """
    return groups_of(path) | {name: one.attrs for name, one in datasets_of(path).items()}


def json_value(value: Any) -> Any:
    """Convert an attribute that JSON cannot represent."""
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def _state(path: Path) -> tuple[Path, int, int, int]:
    """Return a file's identity, which changes only if the file is replaced."""
    try:
        at = path.stat()
    except OSError:
        raise UserError(f"{path}: no such snapshot") from None
    return path, at.st_ino, at.st_mtime_ns, at.st_size


@lru_cache(maxsize=4096)
def _check(path: Path, _inode: int, _changed: int, _size: int) -> None:
    read_snapshot(path, activations=False)  # reports what is wrong with it


@lru_cache(maxsize=4096)
def _group(path: Path, _inode: int, _changed: int, _size: int, group: str) -> dict[str, Described]:
    with opened(path) as file:
        held = file.get(group or "/", {})
        found = {n: _described(one) for n, one in held.items() if isinstance(one, h5py.Dataset)}
        for name, one in found.items():
            _check_axes(f"{group}/{name}", one, found)
    return found


def _check_axes(name: str, one: Described, beside: Mapping[str, Described]) -> None:
    """Raise ValueError unless each named dimension has one coordinate of its length."""
    for axis, (dim, length) in enumerate(zip(one.dims, one.shape, strict=True)):
        labelled = beside[dim].shape == (length,) if dim in beside else dim == f"dim_{axis}"
        if not labelled or one.dims.count(dim) > 1:
            raise ValueError(f"{name}: its dimension {dim} of {length} has not its coordinate")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a snapshot for reading.

    Raises:
        UserError: the file is not a snapshot that this version reads (`store.read_snapshot`), or
            the part that is read is damaged.
    """
    _check(*_state(path))
    with open_snapshot(path) as file:
        yield file


def _attributes(item: Any) -> dict[str, Any]:
    return {name: _plain(item.attrs[name]) for name in item.attrs if name not in _HIDDEN}


def _plain(value: Any) -> Any:
    """Return an attribute as a Python value; an array stays one."""
    return value.item() if isinstance(value, np.generic) else value


def _described(dataset: Any) -> Described:
    texts = h5py.check_string_dtype(dataset.dtype) is not None
    if dataset.shape is None or not (texts or dataset.dtype.kind in "iufb"):
        raise ValueError(f"{dataset.name}: neither numbers nor texts")
    attrs = _attributes(dataset)
    if dataset.name == _LAYERS:
        attrs["description"] = LAYER
    dtype = np.dtype(bool) if attrs.pop("dtype", None) == "bool" else dataset.dtype
    if dataset.is_scale:
        dims: tuple[str, ...] = (dataset.name.rpartition("/")[2],)
    else:
        axes = [axis.keys() for axis in dataset.dims]
        dims = tuple(names[0] if (names := keys) else f"dim_{i}" for i, keys in enumerate(axes))
    if texts:
        dtype = np.dtype(object)
    values = read(dataset, ...) if dataset.is_scale else None
    return Described(dims, dataset.shape, dtype, attrs, values)


def read(dataset: Any, where: Any) -> NDArray[Any]:
    """Read some of a dataset's values: texts as `str`, flags as bool."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        found: NDArray[Any] = np.asarray(dataset.asstr()[where], dtype=object)
    elif dataset.name == _LAYERS:
        found = layer_numbers(dataset, where)
    else:
        found = np.asarray(dataset[where])
    return found.astype(bool) if dataset.attrs.get("dtype") == "bool" else found


def _check_range(key: Sequence[Any], shape: Sequence[int]) -> None:
    """Raise IndexError if a caller's index is out of range, which is not the file's fault."""
    for index, length in zip(key, shape, strict=True):
        np.arange(length)[index]


class OnDisk(BackendArray):
    """Dataset of one file, read when it is indexed."""

    def __init__(self, path: Path, name: str, described: Described) -> None:
        self.path, self.name = path, name
        self.shape, self.dtype = described.shape, described.dtype

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER_1VECTOR  # the kind that h5py supports
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        _check_range(key, self.shape)
        with opened(self.path) as file:
            return read(file[self.name], key)


class Stacked(BackendArray):
    """The same dataset of several files, stacked along a first axis."""

    def __init__(self, paths: Sequence[Path], name: str, described: Described) -> None:
        self.paths, self.name = list(paths), name
        self.shape, self.dtype = (len(self.paths), *described.shape), described.dtype

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        _check_range(key, self.shape)
        which, inner = key[0], key[1:]
        if not isinstance(which, slice):
            return self._read_one(self.paths[which], inner)
        found = [self._read_one(path, inner) for path in self.paths[which]]
        if not found:
            one = np.empty(self.shape[1:], self.dtype)[inner]
            return np.empty((0, *one.shape), self.dtype)
        return np.stack(found)

    def _read_one(self, path: Path, key: tuple[Any, ...]) -> NDArray[Any]:
        with opened(path) as file:
            return read(file[self.name], key)


def lazy(array: BackendArray, dims: Sequence[str], attrs: Mapping[str, Any]) -> xr.Variable:
    """Return a labelled array over one that is read when it is indexed."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(array), dict(attrs))


class SnapshotArrays(Mapping[str, xr.Dataset]):
    """One snapshot: a Dataset for each group that has arrays, by its path such as `probes/D_A`.

    It is not an xarray DataTree, which requires shared dimension names in nested groups to have
    equal labels, while modules differ in their number of features.

    Raises:
        UserError: the file is not a snapshot that this version reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attrs = groups_of(path)[""]

    def __getitem__(self, group: str) -> xr.Dataset:
        if group not in list(self):
            raise UserError(f"{self.path}: no group '{group}'; there are {', '.join(self)}")
        datasets = group_of(self.path, group)
        arrays = {name: OnDisk(self.path, f"{group}/{name}", d) for name, d in datasets.items()}
        return dataset_of(datasets, arrays, groups_of(self.path)[group])

    def __iter__(self) -> Iterator[str]:
        return (group for group in groups_of(self.path) if group_of(self.path, group))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<snapshot {self.path.stem}: {', '.join(self)}>"


def dataset_of(
    datasets: Mapping[str, Described],
    arrays: Mapping[str, BackendArray],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Return a group as a Dataset: scales and the labels of parameters become coordinates.

    Args:
        datasets: of the group.
        arrays: the values of each.
        attrs: of the group.
    """
    variables = {
        name: xr.Variable(one.dims, one.values, one.attrs)
        if one.values is not None
        else lazy(arrays[name], one.dims, one.attrs)
        for name, one in datasets.items()
    }
    beside = [n for n, one in datasets.items() if one.values is not None or is_label(one)]
    coordinates = {name: variables.pop(name) for name in beside}
    return xr.Dataset(variables, coordinates, dict(attrs))


def is_label(one: Described) -> bool:
    """Return whether a dataset labels parameter tensors: by layer, module or size."""
    return one.dims == ("parameter",) and one.values is None
