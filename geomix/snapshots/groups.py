"""Writers of a snapshot file's groups; `geomix.snapshots.file` defines the layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomix.snapshots.schema import (
    NODES,
    PAIR_NODES,
    ModuleRecord,
    PathRecord,
    ProbeRecord,
    Snapshot,
)
from geomix.util.hdf5 import put, scale


def write_probes(group: Any, record: ProbeRecord, parameters: Sequence[str]) -> None:
    """Write `/probes/<set>` and, below it, its modules."""
    scale(group, "example", np.arange(len(record.loss)), "index in the probe set")
    scale(group, "edge", np.arange(len(record.offsets)), "boundary between examples")
    scale(group, "position", np.arange(len(record.positions)), "row of the ragged arrays")
    example, position = ("example",), ("position",)
    put(group, "loss", record.loss, example, units="nat", text="mean over the target tokens")
    exact = record.exact.astype(np.int8)
    dataset = put(group, "exact", exact, example, units="1", text="all target tokens right")
    dataset.attrs["dtype"] = "bool"  # netCDF's convention for booleans, which it lacks
    put(group, "offsets", record.offsets, ("edge",), units="1", text="first position of each")
    text = "index of the predicting token in the example"
    put(group, "positions", record.positions, position, units="1", text=text)
    text = "id of the target token predicted"
    put(group, "targets", record.targets, position, units="1", text=text)
    if record.sketches is not None:
        scale(group, "parameter", parameters, "name in model.named_parameters()")
        scale(group, "entry", np.arange(record.sketches.values.shape[2]), "of a sketch")
        text = "projected gradient of the example's share of the set's mean loss"
        dimensions = ("example", "parameter", "entry")
        found = put(group, "sketches", record.sketches.values, dimensions, units="nat", text=text)
        found.attrs["seed"] = record.sketches.seed
    if record.activations is None or record.gradients is None:
        return
    stream = ("kept_position", "layer", "feature")
    kept, layers, features = record.activations.shape
    scale(group, "kept_position", np.arange(kept), "the first rows of `position`")
    scale(group, "layer", np.arange(layers), "0: input of the first layer; l: output of layer l")
    scale(group, "feature", np.arange(features), "dimension of the residual stream")
    text = "residual stream"
    put(group, "activations", record.activations, stream, units="1", text=text)
    text = "gradient of the set's mean loss with respect to the activations"
    put(group, "gradients", record.gradients, stream, units="nat", text=text)
    if record.lens_rank is not None and record.lens_logprob is not None:
        text = "rank of the target token if the model ended here: 0 is the argmax"
        put(group, "lens_rank", record.lens_rank, stream[:2], units="1", text=text)
        text = "log-probability of the target token if the model ended here"
        put(group, "lens_logprob", record.lens_logprob, stream[:2], units="nat", text=text)
    for name, module in record.modules.items():
        _write_module(group.create_group(f"modules/{name}"), module)


def _write_module(group: Any, record: ModuleRecord) -> None:
    kept, features = record.activations.shape
    scale(group, "kept_position", np.arange(kept), "the first rows of the set's `position`")
    scale(group, "feature", np.arange(features), "of the output, all dimensions in a row")
    dimensions = ("kept_position", "feature")
    put(group, "activations", record.activations, dimensions, units="1", text="output")
    text = "gradient of the set's mean loss with respect to the output"
    put(group, "gradients", record.gradients, dimensions, units="nat", text=text)


def write_parameters(group: Any, snapshot: Snapshot) -> None:
    """Write `/parameters`."""
    scale(group, "parameter", snapshot.parameters, "name in model.named_parameters()")
    scale(group, "set", snapshot.sets, "probe set")
    scale(group, "other_set", snapshot.sets, "probe set")
    parameter = ("parameter",)
    put(group, "size", snapshot.sizes, parameter, units="1", text="elements")
    text = "layer from 0; -1 before the layers, their number behind them"
    put(group, "layer", snapshot.parameter_layers, parameter, units="1", text=text)
    text = "module within the layer"
    put(group, "module", snapshot.parameter_modules, parameter, units="", text=text)
    unreached = snapshot.unreached.astype(np.int8)
    text = "no gradient of the set's loss leads here, it counts as zero"
    dataset = put(group, "unreached", unreached, ("parameter", "set"), units="1", text=text)
    dataset.attrs["dtype"] = "bool"
    text = "inner products between the gradients of the sets' mean losses"
    dimensions = ("parameter", "set", "other_set")
    products = snapshot.inner_products
    put(group, "inner_products", products, dimensions, units="nat^2", text=text)
    if snapshot.adam is None:
        return
    text = "the same with every element weighed by 1 / (sqrt(v) + eps), Adam's metric"
    products = snapshot.adam.products
    dataset = put(group, "inner_products_adam", products, dimensions, units="nat", text=text)
    for key in ("stage", "step", "eps"):
        dataset.attrs[key] = getattr(snapshot.adam, key)


def write_path(group: Any, snapshot: Snapshot, path: PathRecord) -> None:
    """Write `/path`."""
    scale(group, "parameter", snapshot.parameters, "name in model.named_parameters()")
    scale(group, "set", snapshot.sets, "probe set")
    scale(group, "node", NODES, "place on the straight line from the snapshot before")
    scale(group, "part", path.parts, "the whole step of the weights, and what it is the sum of")
    dimensions = ("parameter", "set", "node", "part")
    text = "gradient of the set's mean loss there, times the part of the step"
    dataset = put(group, "products", path.products, dimensions, units="nat", text=text)
    dataset.attrs["from_step"], dataset.attrs["to_step"] = path.from_step, path.to_step
    if path.pair is None:
        return
    scale(group, "pair_node", PAIR_NODES, "end of the straight line over two pieces")
    dimensions = ("parameter", "set", "pair_node", "part")
    text = "gradient of the set's mean loss there, times the part of both pieces' step"
    dataset = put(group, "pairs", path.pair, dimensions, units="nat", text=text)
    dataset.attrs["from_step"], dataset.attrs["to_step"] = path.pair_from_step, path.to_step


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
