"""A model's trained parameters, or their slices by attention head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from geomix.analysis.parameter_groups import Kind, Layout, grouped
from geomix.gradients.inner_products import adam_metric
from geomix.measures.heads import HeadSlice, head_slices
from geomix.models.layers import decoder_layers, location_of, tied_head
from geomix.training.observer import SecondMoments
from geomix.util.errors import UserError

Gradient = list[Tensor | None]
"""One tensor per parameter or slice; None where no path leads to one."""

Metric = list[Callable[[int, int], Tensor] | None]
"""Weights of each slice's elements, see `geomix.gradients.inner_products.inner_products`."""


@dataclass(frozen=True, slots=True)
class SlicedParameters:
    """Trained parameters, or their slices by head.

    Attributes:
        layout: of the slices.
        parts: each slice's parameter name, and its index within the parameter.
    """

    layout: Layout
    parts: list[tuple[str, HeadSlice]]

    @classmethod
    def of(
        cls, model: nn.Module, parameters: Mapping[str, nn.Parameter], *, heads: bool
    ) -> SlicedParameters:
        """Build the layout of a model.

        Args:
            model: a causal LM of transformers.
            parameters: those that are trained.
            heads: whether attention is split by head.

        Raises:
            UserError: heads are requested, and no trained parameter is known to have any.
        """
        layers = len(decoder_layers(model))
        locations = {name: location_of(name, layers) for name in parameters}
        whole = [HeadSlice("")]
        parts = [
            (name, part)
            for name, p in parameters.items()
            for part in ((heads and _heads(model, locations[name].module, p)) or whole)
        ]
        if heads and all(part.head == "" for _, part in parts):
            raise UserError(
                f"--by head: none of the parameters of {type(model).__name__} that are trained is "
                "known to be cut into attention heads; take --by module"
            )
        layout = Layout(
            parameters=tuple(f"{name} {part.head}".strip() for name, part in parts),
            sizes=np.array([parameters[name][part.index].numel() for name, part in parts]),
            parameter_layers=np.array([locations[name].layer for name, _ in parts]),
            parameter_modules=tuple(locations[name].module for name, _ in parts),
            layers=layers,
            tied_head=tied_head(model),
            heads=tuple(part.head for _, part in parts) if heads else (),
        )
        return cls(layout, parts)

    def split(self, tensors: Mapping[str, Tensor | None]) -> Gradient:
        """Return the slices of a gradient."""
        return [
            None if (whole := tensors[name]) is None else whole[part.index]
            for name, part in self.parts
        ]

    def metric(self, second: SecondMoments) -> Metric:
        """Return the weights of Adam's metric, slice by slice; None for untrained parameters."""
        found = second.read()
        return [
            adam_metric(found[name][part.index], second.eps) if name in found else None
            for name, part in self.parts
        ]

    def lowered(self, displacement: Mapping[str, Tensor], second: SecondMoments) -> Gradient:
        """Convert a displacement to a gradient for Adam's metric: each element times √v̂ + ε.

        Its product with others in that metric equals theirs with the displacement itself.

        The metric is one of gradients; a displacement is none, and its length there is that of the
        gradient whose Adam step it would be.
        """
        found = second.read()
        return [
            displacement[name][part.index] * (found[name][part.index].sqrt() + second.eps)
            if name in found
            else None
            for name, part in self.parts
        ]


def groups_of(model: nn.Module, parameters: Mapping[str, nn.Parameter], by: Kind) -> dict[str, str]:
    """Return each parameter's group by its name, in the order in which tables list the groups.

    Args:
        model: a causal LM of transformers.
        parameters: the trained parameters.
        by: `layer`, `module`, `layer-module` or `parameter`.
    """
    layout = SlicedParameters.of(model, parameters, heads=False).layout
    names, index = grouped(layout, by)
    found = {name: names[i] for name, i in zip(layout.parameters, index, strict=True)}
    return dict(sorted(found.items(), key=lambda item: names.index(item[1])))


def _heads(model: Any, module: str, parameter: nn.Parameter) -> list[HeadSlice] | None:
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return head_slices(module, parameter.shape, heads, shared)
