"""One variable over the snapshots of a run, read lazily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomix.snapshots.arrays import Described, Stacked, group_of, is_label, lazy, opened, read
from geomix.snapshots.index import SnapshotFile
from geomix.util.errors import UserError

_OF_THE_SET = ("offsets", "positions", "targets")
"""Variables that are equal in every snapshot: the measured tokens of a probe set."""


Held = list[tuple[SnapshotFile, dict[str, Described]]]
"""Datasets of a group, for each snapshot that has the group."""


def series(files: Sequence[SnapshotFile], name: str) -> xr.DataArray | None:
    """Return one variable of all snapshots with it; see `geomix.snapshots.records.Records.series`.

    Args:
        files: the snapshots, in order.
        name: group and variable.

    Returns:
        None if no snapshot holds it.

    Raises:
        UserError: a file is damaged.
    """
    group, _, own = name.rpartition("/")
    held = [(file, found) for file, found in _held(files, group) if own in found]
    if not held:
        return None
    here = [file for file, _ in held]
    axes = [_axes(found, own) for _, found in held]
    if all(_same(axes[0], other) for other in axes[1:]):
        union, one = axes[0], held[0][1][own]
        array = Stacked([file.path for file in here], name, one)
        variable = lazy(array, ("snapshot", *one.dims), {})
    else:
        union = {dim: _union([one[dim] for one in axes]) for dim in axes[0]}
        variable = _filled(here, name, [found[own] for _, found in held], axes, union)
    coordinates = {**_coordinates(here), **{dim: (dim, labels) for dim, labels in union.items()}}
    found = xr.DataArray(variable, {**coordinates, **_labels(held, name, union)}, name=own)
    return _with_attributes(found, [datasets[own].attrs for _, datasets in held])


def probes(files: Sequence[SnapshotFile], name: str) -> xr.Dataset | None:
    """Return all variables of one probe set; see `geomix.snapshots.records.Records.probes`.

    Raises:
        UserError: it differs between snapshots, or a file is damaged.
    """
    group = f"probes/{name}"
    held = _held(files, group)
    names = {own: one for _, found in held for own, one in found.items() if one.values is None}
    variables: dict[str, xr.DataArray] = {}
    for own in names:
        one = series(files, f"{group}/{own}")
        assert one is not None
        if own in _OF_THE_SET:
            if (one.values != one.values[0]).any():
                raise UserError(
                    f"{files[0].path.parent}: {name} is not the same in all snapshots; "
                    "look at them one by one"
                )
            one = one[0].drop_vars(("snapshot", "stage", "stage_name", "step"))
        variables[own] = one
    return xr.Dataset(variables) if held else None


def _held(files: Sequence[SnapshotFile], group: str) -> Held:
    found = [(file, group_of(file.path, group)) for file in files]
    return [(file, datasets) for file, datasets in found if datasets]


def _with_attributes(array: xr.DataArray, attributes: Sequence[dict[str, Any]]) -> xr.DataArray:
    """Keep attributes that all snapshots share; make the others `<variable>_<attribute>`."""
    names = dict.fromkeys(name for attrs in attributes for name in attrs)
    values = {name: [attrs.get(name) for attrs in attributes] for name in names}
    shared = {name: found[0] for name, found in values.items() if found == found[:1] * len(found)}
    rest = {
        f"{array.name}_{name}": ("snapshot", np.array(found))
        for name, found in values.items()
        if name not in shared
    }
    return array.assign_coords(rest).assign_attrs(shared)


Axes = dict[str, NDArray[Any]]
"""Labels along each dimension."""


def _axes(group: dict[str, Described], name: str) -> Axes:
    """Return the labels along each dimension of a dataset; numbers if the file has none."""
    one, axes = group[name], {}
    for dim, length in zip(one.dims, one.shape, strict=True):
        values = group[dim].values if dim in group else None
        axes[dim] = np.arange(length) if values is None else values
    return axes


def _same(one: Axes, other: Axes) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[d], other[d]) for d in one)


def _union(labels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return all labels, in the order of their first occurrence."""
    found = dict.fromkeys(label for one in labels for label in one.tolist())
    return np.array(list(found), dtype=labels[0].dtype)


def _coordinates(files: Sequence[SnapshotFile]) -> dict[str, Any]:
    texts = {"snapshot": [file.name for file in files]}
    texts["stage_name"] = [file.stage_name for file in files]
    found: dict[str, Any] = {k: ("snapshot", np.array(v, object)) for k, v in texts.items()}
    found["stage"] = ("snapshot", np.array([file.stage for file in files], np.int64))
    found["step"] = ("snapshot", np.array([file.step for file in files], np.int64))
    return found


def _filled(
    files: Sequence[SnapshotFile],
    name: str,
    described: Sequence[Described],
    axes: Sequence[Axes],
    union: Axes,
) -> xr.Variable:
    """Read a variable whose axes differ between the snapshots."""
    first = described[0]
    dtype = first.dtype if first.dtype.kind == "f" else np.dtype(np.float64)
    values = np.full((len(files), *(len(labels) for labels in union.values())), np.nan, dtype)
    rows = {dim: {label: i for i, label in enumerate(found)} for dim, found in union.items()}
    for i, (one, mine) in enumerate(zip(files, axes, strict=True)):
        where = [[rows[dim][label] for label in labels] for dim, labels in mine.items()]
        with opened(one.path) as file:
            values[np.ix_([i], *where)] = read(file[name], ...)
    return xr.Variable(("snapshot", *first.dims), values)


def _labels(held: Held, name: str, union: Axes) -> dict[str, Any]:
    """Return layer, module and size of each parameter, if the variable has such an axis."""
    group, _, own = name.rpartition("/")
    found: dict[str, dict[str, Any]] = {}
    left = set(union.get("parameter", ()))
    for snapshot, datasets in held:
        if not left:
            break
        names = datasets["parameter"].values
        assert names is not None
        if left.isdisjoint(names):
            continue
        left -= set(names)
        with opened(snapshot.path) as file:
            for label in (n for n, one in datasets.items() if is_label(one) and n != own):
                values = read(file[f"{group}/{label}"], ...)
                found.setdefault(label, {}).update(zip(names, values, strict=True))
    order = union.get("parameter", ())
    return {
        label: ("parameter", np.array([known[name] for name in order]))
        for label, known in found.items()
    }
