"""Memory of a deep model from two shallow ones, if all of its layers are alike.

Let a model have n identical layers. The live tensors of a pass then form a chain: those before the
layers, n times those of the same operations, those after the layers. Aligned from the start, the
bytes after each operation of the first layers differ between two depths by a constant; aligned from
the end, those of the last layers do; and from one layer to the next in between they change by a
constant too, so that the highest of them is at one end. Measured at two depths, the peak of any
depth follows without error. Every operation is checked for constant differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from geomix.models.layers import decoder_layers

SHALLOW = 4
"""Layers of the shallower model: two of them belong to either end of a pass."""


def alike(model: nn.Module) -> int:
    """Return the number of a model's decoder layers, if they are all alike; else 0.

    Layers are alike if their modules have the same classes, plain attributes and parameters, with
    the same shapes, types and trainability.
    """
    try:
        layers = [layer for _, layer in decoder_layers(model)]
    except ValueError:
        return 0
    first = _form(layers[0])
    return len(layers) if all(_form(layer) == first for layer in layers[1:]) else 0


def _form(layer: nn.Module) -> list[Any]:
    """Return everything that may distinguish a layer from another one, except its number."""
    found: list[Any] = []
    for name, module in layer.named_modules():
        plain = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float | str) and not key.startswith("layer_")
        }
        found.append((name, type(module), plain))
    for tensors in (layer.named_parameters(), layer.named_buffers()):
        found += [(name, t.shape, t.dtype, t.requires_grad) for name, t in tensors]
    return found


def truncate(model: nn.Module, layers: int) -> None:
    """Keep only the first layers of a model, in place."""
    name, _ = decoder_layers(model)[0]
    stack = model.get_submodule(name.rpartition(".")[0])
    del stack[layers:]  # type: ignore[operator]


def peak(few: Sequence[int], more: Sequence[int], further: int) -> int | None:
    """Return the peak of a pass of a deeper model.

    Args:
        few: bytes alive after each operation, in a model of `SHALLOW` layers.
        more: the same for a model with one layer more.
        further: number of layers that the deeper model has beyond `SHALLOW`.

    Returns:
        Its bytes; None if the two do not differ as models with identical layers do.
    """
    half = len(few) // 2
    starts = [b - a for a, b in zip(few[:half], more, strict=False)]
    ends = [b - a for a, b in zip(reversed(few[half:]), reversed(more), strict=False)]
    if len(more) < len(few) or len(set(starts)) != 1 or len(set(ends)) != 1:
        return None
    return max(max(few[:half]) + further * starts[0], max(few[half:]) + further * ends[0])
