"""Writers of a snapshot file's groups; `geomix.snapshots.file` defines the layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomix.snapshots.schema import NODES, PAIR_NODES, PathRecord, ProbeRecord, Snapshot
from geomix.snapshots.variables import (
    ADAM,
    LENS,
    MODULE,
    PAIRS,
    PARAMETERS,
    PATH,
    PROBES,
    SKETCHES,
    STREAM,
    Block,
    write_block,
)
from geomix.util.hdf5 import put, scale


def fields(record: object, block: Block) -> dict[str, Any]:
    """Return the attributes of a record that have the names of a block's variables."""
    return {variable.name: getattr(record, variable.name) for variable in block.variables}


def write_probes(group: Any, record: ProbeRecord, parameters: Sequence[str]) -> None:
    """Write `/probes/<set>` and, below it, its modules and quantities."""
    held = write_block(group, PROBES, fields(record, PROBES))
    if record.sketches is not None:
        values, seed = {"sketches": record.sketches.values}, {"seed": record.sketches.seed}
        held |= write_block(group, SKETCHES, values, {"parameter": parameters}, seed)
    if record.activations is not None and record.gradients is not None:
        write_block(group, STREAM, fields(record, STREAM))
        if record.lens_rank is not None and record.lens_logprob is not None:
            write_block(group, LENS, fields(record, LENS))
        for name, module in record.modules.items():
            write_block(group.create_group(f"modules/{name}"), MODULE, fields(module, MODULE))
    for name, found in record.quantities.items():
        labels = {"parameter": parameters, **found.labels}
        write_block(group.create_group(f"quantities/{name}"), found.block, found.arrays, labels)


def write_parameters(group: Any, snapshot: Snapshot) -> None:
    """Write `/parameters`."""
    labels = {"parameter": snapshot.parameters, "set": snapshot.sets, "other_set": snapshot.sets}
    values: dict[str, Any] = {
        "size": snapshot.sizes,
        "layer": snapshot.parameter_layers,
        "module": snapshot.parameter_modules,
        "unreached": snapshot.unreached,
        "inner_products": snapshot.inner_products,
    }
    _held = write_block(group, PARAMETERS, values, labels)
    if snapshot.adam is not None:
        about = {key: getattr(snapshot.adam, key) for key in ("stage", "step", "eps")}
        values = {"inner_products_adam": snapshot.adam.products}
        _held = write_block(group, ADAM, values, labels, about)


def write_path(group: Any, snapshot: Snapshot, path: PathRecord) -> None:
    """Write `/path`."""
    labels = {"parameter": snapshot.parameters, "set": snapshot.sets}
    labels |= {"node": NODES, "part": path.parts, "pair_node": PAIR_NODES}
    about = {"from_step": path.from_step, "to_step": path.to_step}
    _held = write_block(group, PATH, fields(path, PATH), labels, about)
    if path.pair is not None:
        about["from_step"] = path.pair_from_step
        _held = write_block(group, PAIRS, {"pairs": path.pair}, labels, about)


def write_gradient(
    group: Any, parameters: Sequence[str], gradient: Iterable[NDArray[np.float32]]
) -> None:
    """Write `/gradients/<set>`, one tensor after the other, so that the whole is not copied."""
    text = "gradient of the set's mean loss"
    for name, values in zip(parameters, gradient, strict=True):
        axes = tuple(f"axis{axis}_{size}" for axis, size in enumerate(values.shape))
        for axis, size in zip(axes, values.shape, strict=True):
            if axis not in group:
                scale(group, axis, np.arange(size), "index along this axis of a parameter")
        put(group, name, values, axes, units="nat", text=text)
