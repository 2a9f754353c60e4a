"""Variables of a snapshot: one table, by which groups are written, checked and documented.

A block is in a group as a whole or not at all. Its coordinates are written first, unless the group
has them, then its variables, in this order.

Dimensions: `example`, `position` (target tokens), `kept_position` (the first of these), `edge`
(example + 1), `layer` (layers + 1), `feature`, `parameter`, `set`, and those of single blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomix.snapshots.versions import LAYER


@dataclass(frozen=True, slots=True)
class Variable:
    """An array of a snapshot.

    Attributes:
        name: name of the dataset.
        dims: names of its dimensions.
        dtype: `float64`, `float32`, `int64`, `int32`, `bool` or `str`.
        unit: `nat`, `1` for none, "" for a text.
        text: its description.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    text: str

    @property
    def kinds(self) -> str:
        """Kinds of dtype, as NumPy's letters, that a file may have for it."""
        return {"f": "f", "s": "O"}.get(self.dtype[0], "iu")


@dataclass(frozen=True, slots=True)
class Block:
    """Variables that a group has together.

    Attributes:
        coordinates: meaning of each dimension's labels.
        variables: in the order in which they are written.
    """

    coordinates: Mapping[str, str]
    variables: tuple[Variable, ...]


_ROW = "row of the ragged arrays"
_NAMES = "name in model.named_parameters()"
_STREAM = ("kept_position", "layer", "feature")
_OUTPUT = ("kept_position", "feature")

PROBES = Block(
    {"example": "index in the probe set", "edge": "boundary between examples", "position": _ROW},
    (
        Variable("loss", ("example",), "float64", "nat", "mean over the target tokens"),
        Variable("exact", ("example",), "bool", "1", "all target tokens right"),
        Variable("offsets", ("edge",), "int64", "1", "first position of each"),
        Variable(
            *("positions", ("position",), "int64", "1"),
            "index of the predicting token in the example",
        ),
        Variable("targets", ("position",), "int64", "1", "id of the target token predicted"),
    ),
)
SKETCHES = Block(
    {"parameter": _NAMES, "entry": "of a sketch"},
    (
        Variable(
            *("sketches", ("example", "parameter", "entry"), "float32", "nat"),
            "projected gradient of the example's share of the set's mean loss",
        ),
    ),
)
STREAM = Block(
    {
        "kept_position": "the first rows of `position`",
        "layer": "0: input of the first layer; l: output of layer l",
        "feature": "dimension of the residual stream",
    },
    (
        Variable("activations", _STREAM, "float32", "1", "residual stream"),
        Variable(
            *("gradients", _STREAM, "float32", "nat"),
            "gradient of the set's mean loss with respect to the activations",
        ),
    ),
)
LENS = Block(
    {},
    (
        Variable(
            *("lens_rank", _STREAM[:2], "int32", "1"),
            "rank of the target token if the model ended here: 0 is the argmax",
        ),
        Variable(
            *("lens_logprob", _STREAM[:2], "float32", "nat"),
            "log-probability of the target token if the model ended here",
        ),
    ),
)
MODULE = Block(
    {
        "kept_position": "the first rows of the set's `position`",
        "feature": "of the output, all dimensions in a row",
    },
    (
        Variable("activations", _OUTPUT, "float32", "1", "output"),
        Variable(
            *("gradients", _OUTPUT, "float32", "nat"),
            "gradient of the set's mean loss with respect to the output",
        ),
    ),
)
PARAMETERS = Block(
    {"parameter": _NAMES, "set": "probe set", "other_set": "probe set"},
    (
        Variable("size", ("parameter",), "int64", "1", "elements"),
        Variable(
            *("layer", ("parameter",), "int64", "1"),
            LAYER,
        ),
        Variable("module", ("parameter",), "str", "", "module within the layer"),
        Variable(
            *("unreached", ("parameter", "set"), "bool", "1"),
            "no gradient of the set's loss leads here, it counts as zero",
        ),
        Variable(
            *("inner_products", ("parameter", "set", "other_set"), "float64", "nat^2"),
            "inner products between the gradients of the sets' mean losses",
        ),
    ),
)
ADAM = Block(
    {},
    (
        Variable(
            *("inner_products_adam", ("parameter", "set", "other_set"), "float64", "nat"),
            "the same with every element weighed by 1 / (sqrt(v) + eps), Adam's metric",
        ),
    ),
)
PATH = Block(
    {
        "parameter": _NAMES,
        "set": "probe set",
        "node": "place on the straight line from the snapshot before",
        "part": "the whole step of the weights, and what it is the sum of",
    },
    (
        Variable(
            *("products", ("parameter", "set", "node", "part"), "float64", "nat"),
            "gradient of the set's mean loss there, times the part of the step",
        ),
    ),
)
PAIRS = Block(
    {"pair_node": "end of the straight line over two pieces"},
    (
        Variable(
            *("pairs", ("parameter", "set", "pair_node", "part"), "float64", "nat"),
            "gradient of the set's mean loss there, times the part of both pieces' step",
        ),
    ),
)

_WITH_ACTIVATIONS = "record.activations above 0"

_KEPT = (
    (r"path/pair(s|_node)", "record.pairs: true"),
    (r"path(/.*)?", "record.midpoints: true"),
    (r"gradients(/.*)?", "record.gradients: true"),
    (r"probes/[^/]*/modules(/.*)?", "record.modules"),
    (r"probes/[^/]*/quantities(/.*)?", "record.quantities"),
    (r"probes/[^/]*/lens_(rank|logprob)", f"record.lens: true and {_WITH_ACTIVATIONS}"),
    (r"probes/[^/]*/sketches", "record.sketches"),
    (r"probes/[^/]*/(activations|gradients)", _WITH_ACTIVATIONS),
    (r"parameters/inner_products_adam", "record.adam: true, after Adam's first step"),
)


def kept_with(name: str) -> str:
    """Return the configuration's key with which a variable or group is kept; "" if it always is.

    Args:
        name: its path in the file.
    """
    return next((key for pattern, key in _KEPT if re.fullmatch(pattern, name)), "")


def write_block(
    group: Any,
    block: Block,
    arrays: Mapping[str, NDArray[Any] | Sequence[str]],
    labels: Mapping[str, Sequence[str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a block's coordinates, then its variables.

    Args:
        group: group of the file.
        block: the block to write.
        arrays: the variables' values.
        labels: labels of dimensions that have names; others are numbered.
        attributes: attributes of the last variable.

    Returns:
        The datasets that have attributes of their own, open: HDF5 lays out first what is closed
        first, so the holder of these decides the bytes of the file.
    """
    from geomix.util.hdf5 import put, scale

    known = labels or {}
    held: dict[str, Any] = {}
    for name, text in block.coordinates.items():
        if name in group:
            continue
        length = 0 if name in known else _length(name, block.variables, arrays)
        scale(group, name, known[name] if name in known else np.arange(length), text)
    for variable in block.variables:
        values = arrays[variable.name]
        more = dict(attributes or {}) if variable is block.variables[-1] else {}
        if variable.dtype == "bool":
            values = np.asarray(values).astype(np.int8)
            more["dtype"] = "bool"  # netCDF's convention for booleans, which it lacks
        about = {"units": variable.unit, "text": variable.text}
        if not more:
            put(group, variable.name, values, variable.dims, **about)
            continue
        held[variable.name] = put(group, variable.name, values, variable.dims, **about)
        for key, value in more.items():
            held[variable.name].attrs[key] = value
    return held


def _length(
    name: str, variables: Iterable[Variable], arrays: Mapping[str, NDArray[Any] | Sequence[str]]
) -> int:
    """Return the length of a dimension, from a variable that has it."""
    one = next(variable for variable in variables if name in variable.dims)
    return int(np.shape(arrays[one.name])[one.dims.index(name)])


def check_block(group: Any, block: Block, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless a group's variables have their kinds and shapes.

    Args:
        group: group of a file.
        block: the block that it should hold.
        sizes: known lengths of dimensions; another one has that of its coordinate.
    """
    from geomix.util.hdf5 import expect

    for variable in block.variables:
        shape = tuple(sizes[d] if d in sizes else len(group[d]) for d in variable.dims)
        expect(group, variable.kinds, **{variable.name: shape})


def check_lengths(group: Any, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless each coordinate of a group is as long as its dimension elsewhere.

    Args:
        group: group of a file, with variables that this table lacks.
        sizes: known lengths of dimensions.
    """
    for name, found in group.items():
        if found.is_scale and len(found) != sizes.get(name, len(found)):
            raise ValueError(f"{found.name}: {len(found)} where {sizes[name]} belong")
