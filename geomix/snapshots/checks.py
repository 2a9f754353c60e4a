"""Consistency of the arrays of a snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np

from geomix.snapshots.schema import NODES, PAIR_NODES
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
    check_block,
    check_lengths,
)
from geomix.snapshots.versions import layer_numbers
from geomix.util.hdf5 import expect, strings

_STAGES = 26
"""Most stages of a run: the models at their ends are θ_A to θ_Z."""


def check_shapes(file: Any) -> None:
    """Raise ValueError unless arrays have valid shapes and kinds, and numbers valid ranges."""
    stage, step, steps, layers = (int(file.attrs[n]) for n in ("stage", "step", "steps", "layers"))
    if not (0 <= stage < _STAGES and 0 <= step <= steps and layers >= 0):
        raise ValueError(f"stage {stage}, step {step} of {steps}, {layers} layers: impossible")
    parameters = file["parameters"]
    m, sets = len(parameters["parameter"]), strings(parameters["set"])
    s = len(sets)
    sizes = {"parameter": m, "set": s, "other_set": s}
    check_block(parameters, PARAMETERS, sizes)
    expect(parameters, "O", parameter=(m,), set=(s,), other_set=(s,))
    if "inner_products_adam" in parameters:
        check_block(parameters, ADAM, sizes)
    if "path" in file:
        sizes |= {"node": len(NODES), "pair_node": len(PAIR_NODES)}
        check_block(file["path"], PATH, sizes)
        if "pairs" in file["path"]:
            check_block(file["path"], PAIRS, sizes)
    if not all(0 <= layer <= layers + 1 for layer in layer_numbers(parameters["layer"])):
        raise ValueError(f"a parameter lies outside the {layers} layers")
    elements = dict(zip(strings(parameters["parameter"]), parameters["size"][:], strict=True))
    for name in sets if "gradients" in file else ():
        _check_gradient(file[f"gradients/{name}"], elements)
    for name in sets:
        _check_probes(file[f"probes/{name}"], m, layers)


def _check_probes(group: Any, m: int, layers: int) -> None:
    """Validate the arrays of one probe set; m parameter tensors."""
    n, p = len(group["loss"]), len(group["positions"])
    sizes = {"example": n, "edge": n + 1, "position": p, "parameter": m, "layer": layers + 1}
    check_block(group, PROBES, sizes)
    bounds = group["offsets"][:]
    if bounds[0] != 0 or bounds[-1] != p or (np.diff(bounds) < 0).any():
        raise ValueError(f"{group.name}: the offsets do not divide its {p} positions")
    if "sketches" in group:
        check_block(group, SKETCHES, sizes)
        int(group["sketches"].attrs["seed"])
    if "activations" in group:
        kept = len(group["activations"])
        if kept > p:
            raise ValueError(f"{group.name}: {kept} of {p} positions have activations")
        sizes["kept_position"] = kept
        check_block(group, STREAM, {**sizes, "feature": group["activations"].shape[2]})
        for module in group.get("modules", {}).values():
            check_block(module, MODULE, {**sizes, "feature": module["activations"].shape[1]})
        if "lens_rank" in group:
            check_block(group, LENS, sizes)
    for quantity in group.get("quantities", {}).values():
        check_lengths(quantity, sizes)


def _check_gradient(group: Any, sizes: dict[str, int]) -> None:
    """Validate that a set's whole gradient has every element of every parameter, by size alone."""
    for name, size in sizes.items():
        found = group[name]
        if found.size != size or found.dtype.kind != "f":
            raise ValueError(f"{found.name}: {found.dtype} {found.shape}, not {size} elements")
