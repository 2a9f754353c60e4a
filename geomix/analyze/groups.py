"""Parameter tensors into the groups that a table shows: layers, modules, or each by itself."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomix.record.snapshot import Snapshot

By = Literal["layer", "module", "parameter"]


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
