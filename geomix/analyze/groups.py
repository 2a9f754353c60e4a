"""Parameter tensors into the groups that a table shows: layers, modules, or each by itself."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomix.record.snapshot import Snapshot

By = Literal["layer", "module", "parameter"]

NORMS = "norms"
"""All norms of a layer."""


def grouped(snapshot: Snapshot, by: By) -> tuple[list[str], NDArray[np.int64]]:
    """Name the groups, from the embedding to the head, and say which one each parameter is in.

    Returns:
        The g names, and `(p,)` the index of each parameter's group.
    """
    names = [_group(snapshot, i, by) for i in range(len(snapshot.parameters))]
    depth = {name: int(layer) for name, layer in zip(names, snapshot.parameter_layers, strict=True)}
    order = sorted(depth, key=lambda name: depth[name]) if by == "layer" else list(depth)
    index = {name: i for i, name in enumerate(order)}
    return order, np.array([index[name] for name in names], dtype=np.int64)


def _group(snapshot: Snapshot, i: int, by: By) -> str:
    layer, module = int(snapshot.parameter_layers[i]), snapshot.parameter_modules[i]
    positions = layer < 0 and ("pos" in module or "wpe" in module)
    norm = "norm" in module or module.startswith("ln")
    # A tied head has no parameter of its own: its part must never pass for the embedding's.
    tied = " (tied)" if snapshot.tied_head and layer < 0 and not positions and not norm else ""
    if by == "parameter":
        return snapshot.parameters[i] + (" +head" + tied if tied else "")
    if by == "module":
        return module + ("+head" + tied if tied else "")
    if 0 <= layer < snapshot.layers:
        return f"layer {layer}"
    if layer < 0:
        plain = "position embedding" if positions else "embedding norm" if norm else "embedding"
        return plain + ("+head" + tied if tied else "")
    return "final norm" if norm else "head" if "head" in module or "embed" in module else module


def layer_modules(snapshot: Snapshot) -> tuple[list[str], NDArray[np.int64]]:
    """Layers and modules crossed: `layer 3 · q_proj`; a layer's norms are one, `layer 3 · norms`.

    What is outside of the layers keeps the name that it has by layer. A module goes by as much of
    the end of its name as tells it from the others: GPT-2's are `attn.c_proj` and `mlp.c_proj`.

    Returns:
        As `grouped` does; a layer's modules are in the model's order, its norms behind them.
    """
    inside = [0 <= layer < snapshot.layers for layer in snapshot.parameter_layers]
    modules = snapshot.parameter_modules
    short = _shortest({m for m, within in zip(modules, inside, strict=True) if within})
    names, depth = [], {}
    for i, within in enumerate(inside):
        name = _group(snapshot, i, "layer")
        if within:
            name += f" · {short[modules[i]]}"
        names.append(name)
        depth[name] = (int(snapshot.parameter_layers[i]), name.endswith(f" · {NORMS}"))
    order = sorted(depth, key=lambda name: depth[name])
    index = {name: i for i, name in enumerate(order)}
    return order, np.array([index[name] for name in names], dtype=np.int64)


def _shortest(modules: set[str]) -> dict[str, str]:
    """What each module of a layer is called: the shortest end of its name that no other has."""
    found = {}
    for module in modules:
        parts = module.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in modules if other != module]
        own = (end for end in ends if not any(other.endswith(f".{end}") for other in others))
        norm = "norm" in module or parts[-1].startswith("ln")
        found[module] = NORMS if norm else next(own, module)
    return found
