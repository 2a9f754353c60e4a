"""Snapshots as tidy Parquet tables: one a kind of array, over all snapshots.

`parameters.parameter-set-other_set.parquet` has a row for each snapshot, parameter, set and other
set, and a column for each array with those dimensions; an array that a snapshot lacks is null
there. Tables of `probes` have the column `set`, those of its modules `module` too, those of its
quantities `quantity`. Vectors
(`feature`, `entry`) are lists. Whole gradients, and arrays without labels on all axes, are a row
each in `arrays.parquet`, and `attributes.parquet` has what the files say about themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geomix.snapshots.arrays import (
    Described,
    attributes_of,
    group_of,
    groups_of,
    json_value,
    opened,
    read,
)

_VECTORS = ("feature", "entry")
"""Last dimensions whose numbers are meaningful only together: a list, not a row each."""

_WHOLE_KIND = "gradients"
"""Group whose arrays have the shapes of parameters: no table, a row each."""

_POSITION = [("stage", pa.int64()), ("step", pa.int64())]
_ABOUT = pa.schema(
    [*_POSITION, ("path", pa.string()), ("attribute", pa.string()), ("value", pa.string())]
)
_WHOLE = pa.schema(
    [
        *_POSITION,
        ("path", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("values", pa.large_list(pa.float32())),
    ]
)

Key = tuple[str, tuple[str, ...]]
"""Key of an array's table: its kind and its dimensions, without those of vectors."""


def _kind(group: str) -> tuple[str, dict[str, str]]:
    """Return a group's kind, and the columns from its path: `probes/<set>/modules/<module>`."""
    parts = group.split("/", 3)
    if parts[0] != "probes":
        return group.replace("/", "."), {}
    inner = "quantity" if "quantities" in parts[2:3] else "module"
    columns = dict(zip(("set", inner), parts[1::2], strict=False))
    return ".".join(parts[::2]), columns


@dataclass(slots=True)
class _Table:
    """Columns of a table: from the groups' paths, the labels, the arrays."""

    key: Key
    inner: dict[str, pa.Field] = field(default_factory=dict)
    labels: dict[str, pa.Field] = field(default_factory=dict)
    arrays: dict[str, pa.Field] = field(default_factory=dict)

    @property
    def name(self) -> str:
        kind, dims = self.key
        return f"{kind}.{'-'.join(dims)}"

    @property
    def schema(self) -> pa.Schema:
        columns = [*self.inner.values(), *self.labels.values(), *self.arrays.values()]
        return pa.schema([*(pa.field(*one) for one in _POSITION), *columns])


def write_parquet(
    snapshots: Sequence[Path], folder: Path, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Write the tables of these snapshots, one row group a snapshot and group.

    Args:
        snapshots: their files, in order.
        folder: of the tables.
        advance: called after each snapshot.

    Raises:
        UserError: a snapshot is damaged.
    """
    tables = _tables(snapshots)
    with ExitStack() as stack:

        def begin(name: str, schema: pa.Schema) -> Any:
            return stack.enter_context(pq.ParquetWriter(folder / f"{name}.parquet", schema))

        writers = {key: begin(table.name, table.schema) for key, table in tables.items()}
        about = begin("attributes", _ABOUT)
        if any(_whole(g, group_of(p, g)) for p in snapshots for g in groups_of(p)):
            whole = begin("arrays", _WHOLE)
        for path in snapshots:
            groups = groups_of(path)
            position = {name: int(groups[""][name]) for name, _ in _POSITION}
            about.write_table(_about(path, position))
            for group in groups:
                for key, names in _sorted(group, group_of(path, group)).items():
                    writers[key].write_table(_rows(path, group, names, tables[key], position))
                for name in _whole(group, group_of(path, group)):
                    whole.write_table(_row(path, f"{group}/{name}", position))
            advance(1)


def _sorted(group: str, datasets: dict[str, Described]) -> dict[Key, list[str]]:
    """Return the labelled arrays of a group, by table."""
    found: dict[Key, list[str]] = {}
    rest = _whole(group, datasets)
    for name, one in datasets.items():
        if one.values is None and name not in rest:
            dims = one.dims[:-1] if one.dims[-1] in _VECTORS else one.dims
            found.setdefault((_kind(group)[0], dims), []).append(name)
    return found


def _whole(group: str, datasets: dict[str, Described]) -> list[str]:
    """Return the arrays outside of tables: whole gradients, and arrays with an unlabelled axis."""
    return [
        name
        for name, one in datasets.items()
        if one.values is None
        and (
            group.partition("/")[0] == _WHOLE_KIND
            or not one.dims
            or any(dim not in datasets for dim in one.dims)
        )
    ]


def _tables(snapshots: Sequence[Path]) -> dict[Key, _Table]:
    """Return all tables, with a column for every array that any snapshot has."""
    found: dict[Key, _Table] = {}
    for path in snapshots:
        for group in groups_of(path):
            datasets = group_of(path, group)
            for key, names in _sorted(group, datasets).items():
                table = found.setdefault(key, _Table(key))
                table.inner = {name: pa.field(name, pa.string()) for name in _kind(group)[1]}
                for dim in key[1]:
                    table.labels[dim] = pa.field(dim, _scalar(datasets[dim].dtype))
                for name in names:
                    one = datasets[name]
                    kind = _scalar(one.dtype)
                    if len(one.dims) > len(key[1]):
                        kind = pa.list_(kind)
                    metadata = {k: v for k, v in one.attrs.items() if isinstance(v, str)}
                    table.arrays[name] = pa.field(name, kind, metadata=metadata)
    return found


def _scalar(dtype: np.dtype[Any]) -> pa.DataType:
    return pa.string() if dtype.kind == "O" else pa.from_numpy_dtype(dtype)


def _rows(
    path: Path, group: str, names: Sequence[str], table: _Table, position: dict[str, int]
) -> pa.Table:
    """Return the rows of one group in a table."""
    datasets, dims = group_of(path, group), table.key[1]
    shape = tuple(datasets[dim].shape[0] for dim in dims)
    rows = int(np.prod(shape))
    same = {**position, **_kind(group)[1]}
    columns = {name: pa.repeat(pa.scalar(value), rows) for name, value in same.items()}
    for axis, dim in enumerate(dims):
        values = datasets[dim].values
        assert values is not None
        along = values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        columns[dim] = _column(np.broadcast_to(along, shape), table.labels[dim].type)
    with opened(path) as file:
        for name in names:
            columns[name] = _column(read(file[f"{group}/{name}"], ...), table.arrays[name].type)
    schema = table.schema
    arrays = [
        columns[one.name] if one.name in columns else pa.nulls(rows, one.type) for one in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    flat = values.reshape(-1)
    if not pa.types.is_list(kind):
        return pa.array(flat, kind)
    rows, length = flat.size // values.shape[-1], values.shape[-1]
    ends = pa.array(np.arange(rows + 1) * length, pa.int32())
    return pa.ListArray.from_arrays(ends, pa.array(flat, kind.value_type))


def _about(path: Path, position: dict[str, int]) -> pa.Table:
    """Return the attributes of a file and its arrays, with values as JSON."""
    rows = [
        {**position, "path": name, "attribute": key, "value": json.dumps(value, default=json_value)}
        for name, attrs in attributes_of(path).items()
        for key, value in attrs.items()
    ]
    return pa.Table.from_pylist(rows, _ABOUT)


def _row(path: Path, name: str, position: dict[str, int]) -> pa.Table:
    """Return a whole array as one row: 64-bit offsets, as a gradient may exceed 2³¹ numbers."""
    with opened(path) as file:
        values = read(file[name], ...)
    flat = pa.array(values.reshape(-1).astype(np.float32))
    numbers = pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat)
    shape = pa.array([list(values.shape)], pa.list_(pa.int64()))
    columns = [pa.array([position[key]]) for key, _ in _POSITION]
    return pa.Table.from_arrays([*columns, pa.array([name]), shape, numbers], schema=_WHOLE)
