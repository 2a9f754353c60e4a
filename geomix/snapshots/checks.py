"""Consistency of the arrays of a snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np

from geomix.snapshots.schema import NODES, PAIR_NODES
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
    expect(parameters, "f", inner_products=(m, s, s))
    expect(parameters, "iu", size=(m,), layer=(m,), unreached=(m, s))
    if "inner_products_adam" in parameters:
        expect(parameters, "f", inner_products_adam=(m, s, s))
    if "path" in file:
        parts = len(file["path/part"])
        expect(file["path"], "f", products=(m, s, len(NODES), parts))
        if "pairs" in file["path"]:
            expect(file["path"], "f", pairs=(m, s, len(PAIR_NODES), parts))
    expect(parameters, "O", parameter=(m,), module=(m,), set=(s,), other_set=(s,))
    if not all(-1 <= layer <= layers for layer in parameters["layer"][:]):
        raise ValueError(f"a parameter lies outside the {layers} layers")
    sizes = dict(zip(strings(parameters["parameter"]), parameters["size"][:], strict=True))
    for name in sets if "gradients" in file else ():
        _check_gradient(file[f"gradients/{name}"], sizes)
    for name in sets:
        _check_probes(file[f"probes/{name}"], m, layers)


def _check_probes(group: Any, m: int, layers: int) -> None:
    """Validate the arrays of one probe set; m parameter tensors."""
    n, p = len(group["loss"]), len(group["positions"])
    expect(group, "f", loss=(n,))
    expect(group, "iu", exact=(n,), offsets=(n + 1,), positions=(p,), targets=(p,))
    bounds = group["offsets"][:]
    if bounds[0] != 0 or bounds[-1] != p or (np.diff(bounds) < 0).any():
        raise ValueError(f"{group.name}: the offsets do not divide its {p} positions")
    if "sketches" in group:
        expect(group, "f", sketches=(n, m, len(group["entry"])))
        int(group["sketches"].attrs["seed"])
    if "activations" in group:
        kept, _, features = group["activations"].shape
        if kept > p:
            raise ValueError(f"{group.name}: {kept} of {p} positions have activations")
        stream = (kept, layers + 1, features)
        expect(group, "f", activations=stream, gradients=stream)
        for module in group.get("modules", {}).values():
            output = (kept, module["activations"].shape[1])
            expect(module, "f", activations=output, gradients=output)
        if "lens_rank" in group:
            expect(group, "iu", lens_rank=(kept, layers + 1))
            expect(group, "f", lens_logprob=(kept, layers + 1))


def _check_gradient(group: Any, sizes: dict[str, int]) -> None:
    """Validate that a set's whole gradient has every element of every parameter, by size alone."""
    for name, size in sizes.items():
        found = group[name]
        if found.size != size or found.dtype.kind != "f":
            raise ValueError(f"{found.name}: {found.dtype} {found.shape}, not {size} elements")
