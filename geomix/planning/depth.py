"""A deep model's memory from two shallow ones, where all of its layers are alike.

Let a model have n identical layers. What is alive during a pass is then a chain: what stands
before the layers, n times the same operations, what stands behind them. Aligned from the start, the
bytes after each operation of the first layers differ between two depths by a constant; aligned
from the end, those of the last layers do; and from one layer to the next in between they change by
a constant too, so that the highest of them is at one end. Measured at two depths, the peak of any
depth follows without error. That the differences are constant is checked for every operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from geomix.models.layers import decoder_layers

SHALLOW = 4
"""Layers of the shallower model: two of them belong to either end of a pass."""


def alike(model: nn.Module) -> int:
    """How many decoder layers a model has, if they are all alike; else 0.

    Layers are alike where their modules have the same classes, plain attributes and parameters,
    of the same shapes and types, which train or not.
    """
    try:
        layers = [layer for _, layer in decoder_layers(model)]
    except ValueError:
        return 0
    first = _form(layers[0])
    return len(layers) if all(_form(layer) == first for layer in layers[1:]) else 0


def _form(layer: nn.Module) -> list[Any]:
    """All that can make a layer unlike another one, but for its number."""
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
    """Leave only the first layers of a model, in place."""
    name, _ = decoder_layers(model)[0]
    stack = model.get_submodule(name.rpartition(".")[0])
    del stack[layers:]  # type: ignore[operator]


def peak(few: Sequence[int], more: Sequence[int], further: int) -> int | None:
    """The highest point of a pass of a deeper model.

    Args:
        few: bytes alive after each operation, in a model of `SHALLOW` layers.
        more: the same of a model that has one layer more.
        further: how many layers the deeper model has beyond `SHALLOW`.

    Returns:
        Its bytes; None where the two do not differ as models with identical layers do.
    """
    half = len(few) // 2
    starts = [b - a for a, b in zip(few[:half], more, strict=False)]
    ends = [b - a for a, b in zip(reversed(few[half:]), reversed(more), strict=False)]
    if len(more) < len(few) or len(set(starts)) != 1 or len(set(ends)) != 1:
        return None
    return max(max(few[:half]) + further * starts[0], max(few[half:]) + further * ends[0])
