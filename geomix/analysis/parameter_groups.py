"""Grouping of parameter tensors for a table: by layer, module, head, or each alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

By = Literal["layer", "module", "parameter"]

Kind = Literal["layer", "module", "layer-module", "head", "parameter"]
"""Groupings of the angles; heads need the weights, as a record holds whole tensors."""

NORMS = "norms"
"""Group of all norms of a layer."""


class HasLayout(Protocol):
    """Layout of a model's parameters; a snapshot has it, as does `Layout`."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the M tensors."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Elements `(M,)` of each."""

    @property
    def parameter_layers(self) -> NDArray[np.int64]:
        """Layer `(M,)` of each: l in block l, 0 before the first, `layers` + 1 after the last."""

    @property
    def parameter_modules(self) -> tuple[str, ...]:
        """Module of each within its layer."""

    @property
    def layers(self) -> int:
        """Number of decoder layers."""

    @property
    def tied_head(self) -> bool:
        """True if the output head shares the embedding's tensor."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Parameters of a model, or slices of them; see `HasLayout`.

    Attributes:
        parameters: names of the M tensors or slices.
        sizes: `(M,)`.
        parameter_layers: `(M,)`.
        parameter_modules: M names.
        layers: decoder layers.
        tied_head: whether the head is the embedding.
        heads: the head of each slice, "" for none; empty for whole tensors.
    """

    parameters: tuple[str, ...]
    sizes: NDArray[np.int64]
    parameter_layers: NDArray[np.int64]
    parameter_modules: tuple[str, ...]
    layers: int
    tied_head: bool
    heads: tuple[str, ...] = ()


def layout_of(layout: HasLayout) -> Layout:
    """Return only the layout of an object that has more."""
    return Layout(
        layout.parameters,
        layout.sizes,
        layout.parameter_layers,
        layout.parameter_modules,
        layout.layers,
        layout.tied_head,
    )


def same_parameters(one: HasLayout, other: HasLayout) -> bool:
    """Return whether two models have the same tensors."""
    return one.parameters == other.parameters and np.array_equal(one.sizes, other.sizes)


def grouped(layout: HasLayout, by: Kind) -> tuple[list[str], NDArray[np.int64]]:
    """Return the groups' names, from the embedding to the head, and each parameter's group.

    By head, parameters that belong to no head are in the group `no head`.

    Returns:
        The g names, and `(p,)` the index of each parameter's group.
    """
    if by == "layer-module":
        return layer_modules(layout)
    names = [_group(layout, i, by) for i in range(len(layout.parameters))]
    depth = {name: int(layer) for name, layer in zip(names, layout.parameter_layers, strict=True)}
    order = list(depth)
    if by == "layer":
        order.sort(key=lambda name: depth[name])
    elif by == "head":
        order.sort(key=lambda name: (name == NO_HEAD, depth[name], _natural(name)))
    index = {name: i for i, name in enumerate(order)}
    return order, np.array([index[name] for name in names], dtype=np.int64)


NO_HEAD = "no head"
"""Group of parameters that belong to no attention head."""


def _natural(name: str) -> Sequence[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split()]


def _group(layout: HasLayout, i: int, by: Kind) -> str:
    layer, module = int(layout.parameter_layers[i]), layout.parameter_modules[i]
    if by == "head":
        heads = layout.heads if isinstance(layout, Layout) else ()
        return f"layer {layer} {heads[i]}" if heads and heads[i] else NO_HEAD
    positions = layer == 0 and ("pos" in module or "wpe" in module)
    norm = "norm" in module or module.startswith("ln")
    # A tied head has no parameter of its own: its part must never pass for the embedding's.
    tied = " (tied)" if layout.tied_head and layer == 0 and not positions and not norm else ""
    if by == "parameter":
        return layout.parameters[i] + (" +head" + tied if tied else "")
    if by == "module":
        return module + ("+head" + tied if tied else "")
    if 1 <= layer <= layout.layers:
        return f"layer {layer}"
    if layer == 0:
        plain = "position embedding" if positions else "embedding norm" if norm else "embedding"
        return plain + ("+head" + tied if tied else "")
    return "final norm" if norm else "head" if "head" in module or "embed" in module else module


def layer_modules(layout: HasLayout) -> tuple[list[str], NDArray[np.int64]]:
    """Group by layer and module: `layer 3 · q_proj`; a layer's norms are one, `layer 3 · norms`.

    Groups outside of the layers keep their name by layer. A module's name is its shortest unique
    suffix: GPT-2's are `attn.c_proj` and `mlp.c_proj`.

    Returns:
        As `grouped`; a layer's modules are in the model's order, followed by its norms.
    """
    inside = [1 <= layer <= layout.layers for layer in layout.parameter_layers]
    modules = layout.parameter_modules
    short = _shortest({m for m, within in zip(modules, inside, strict=True) if within})
    names, depth = [], {}
    for i, within in enumerate(inside):
        name = _group(layout, i, "layer")
        if within:
            name += f" · {short[modules[i]]}"
        names.append(name)
        depth[name] = (int(layout.parameter_layers[i]), name.endswith(f" · {NORMS}"))
    order = sorted(depth, key=lambda name: depth[name])
    index = {name: i for i, name in enumerate(order)}
    return order, np.array([index[name] for name in names], dtype=np.int64)


def _shortest(modules: set[str]) -> dict[str, str]:
    """Return each module's label within a layer: the shortest suffix that no other has."""
    found = {}
    for module in modules:
        parts = module.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in modules if other != module]
        own = (end for end in ends if not any(other.endswith(f".{end}") for other in others))
        norm = "norm" in module or parts[-1].startswith("ln")
        found[module] = NORMS if norm else next(own, module)
    return found
