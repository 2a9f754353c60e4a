"""Layers of a causal LM of transformers, and names of its parameters in tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")


@dataclass(frozen=True, slots=True)
class Location:
    """Location of a parameter.

    Attributes:
        layer: 0 before the first block, l in block l (whose output is hidden state l), the number
            of blocks + 1 after the last.
        module: its name within the layer.
    """

    layer: int
    module: str


def decoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the decoder's layers as `(qualified name, module)`, from the first to the last.

    The longest `nn.ModuleList` is the stack, in every causal LM of transformers.

    Raises:
        ValueError: the model holds no list of layers.
    """
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise ValueError(f"{type(model).__name__} holds no list of layers (nn.ModuleList)")
    depth = min(name.count(".") for name, _ in lists)
    name, stack = max(
        ((n, m) for n, m in lists if n.count(".") == depth), key=lambda pair: len(pair[1])
    )
    return [(f"{name}.{i}", layer) for i, layer in enumerate(stack)]


def location_of(parameter: str, layers: int) -> Location:
    """Return layer and module of a parameter, from its qualified name.

    Args:
        parameter: name as in `model.named_parameters()`.
        layers: number of decoder layers of the model.
    """
    found = _LAYER.search(parameter)
    if found:
        inner = found.group(2).removesuffix(".weight").removesuffix(".bias")
        return Location(int(found.group(1)) + 1, inner)
    short = parameter.removesuffix(".weight").removesuffix(".bias").split(".")[-1]
    before = any(word in short for word in ("embed", "wte", "wpe"))
    return Location(0 if before else layers + 1, short)


def tied_head(model: nn.Module) -> bool:
    """Return whether the output head shares the embedding's tensor, so that one row holds both."""
    ends = [getattr(model, f"get_{name}_embeddings", None) for name in ("output", "input")]
    head, embedding = (end() if callable(end) else None for end in ends)
    return head is not None and embedding is not None and head.weight is embedding.weight


def after_layers(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the model's own path from its last layer to the logits: norm, scaling, head, soft cap.

    It is the model's forward pass with the layers skipped, so that no part has to be known by name.

    Args:
        model: a causal LM of transformers, in evaluation mode.

    Returns:
        A function from residual streams `(N, D)` to logits `(N, V)`, without a gradient.
    """
    layers = [layer for _, layer in decoder_layers(model)]
    device = next(model.parameters()).device

    def logits_of(count: int) -> Tensor:
        ids = torch.zeros(count, 1, dtype=torch.int64, device=device)
        with torch.no_grad():
            found: Tensor = model(input_ids=ids, use_cache=False).logits
        return found[:, 0]

    behind: list[tuple[Any, ...] | None] = []  # the layer's outputs after its hidden state

    def see(_: nn.Module, __: Any, output: Any) -> None:
        behind.append(output[1:] if isinstance(output, tuple) else None)

    handles = [layer.register_forward_hook(see) for layer in layers]
    try:
        logits_of(1)
    finally:
        for handle in handles:
            handle.remove()

    def to_logits(hidden: Tensor) -> Tensor:
        given = hidden.to(device).unsqueeze(1)
        found = [vars(layer).get("forward") for layer in layers]
        try:
            for layer, rest in zip(layers, behind, strict=True):
                out = given if rest is None else (given, *rest)
                vars(layer)["forward"] = lambda *_, out=out, **__: out
            return logits_of(len(hidden))
        finally:
            for layer, forward in zip(layers, found, strict=True):
                del vars(layer)["forward"]
                if forward is not None:
                    vars(layer)["forward"] = forward

    return to_logits
