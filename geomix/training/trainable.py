"""Trainable parameters of a stage: by name patterns, or low-rank adapters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from geomix.config.training import LoraConfig
from geomix.models.layers import Location, decoder_layers, location_of, tied_head
from geomix.util.errors import UserError

_BASE = ".base_layer"
"""Part that peft inserts into the name of a parameter whose module has an adapter."""

_ADAPTER = re.compile(r"\.lora_[A-Za-z_]+\.")


def trained_names(model: nn.Module, patterns: str | Sequence[str], where: str) -> set[str]:
    """Return the parameters that match any of the patterns (`TrainConfig.trainable`).

    Args:
        model: a causal LM without adapters.
        patterns: `all`, or a list of them.
        where: the key of the configuration that holds them, for the message.

    Raises:
        UserError: a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]  # tied ones once
    if isinstance(patterns, str):
        return set(names)
    count = len(decoder_layers(model))
    locations = {name: location_of(name, count) for name in names}
    head = {id(p) for p in _head(model).parameters()} if not tied_head(model) else set()
    heads = {name for name, p in model.named_parameters() if id(p) in head}
    found: set[str] = set()
    for pattern in patterns:
        if re.match(r"layers:0+(?:-|$)", pattern):
            raise UserError(
                f"{where}: '{pattern}': layers count from 1, the first block, to {count}; what "
                "comes before it is 'embedding'"
            )
        matched = {name for name in names if _matches(pattern, name, locations[name], count)}
        matched |= heads if pattern == "head" else set()
        if not matched:
            raise UserError(
                f"{where}: '{pattern}' matches none of the model's {len(names)} parameters, such "
                f"as {names[-1]}; give layers:1-{count}, module:NAME, embedding, head or a "
                "name with '*' (a head that is tied to the embedding is the embedding)"
            )
        found |= matched
    return found


def _head(model: Any) -> nn.Module:
    head: nn.Module = model.get_output_embeddings()
    return head


def _matches(pattern: str, name: str, location: Location, layers: int) -> bool:
    if span := re.fullmatch(r"layers:(\d{1,6})(?:-(\d{1,6}))?", pattern):
        first, last = int(span[1]), int(span[2] or span[1])
        return first <= location.layer <= last and 1 <= location.layer <= layers
    if pattern.startswith("module:"):
        return pattern.removeprefix("module:") in location.module.split(".")
    if pattern == "embedding":
        return location.layer == 0
    return fnmatchcase(name, pattern)


def set_trained(model: nn.Module, names: set[str]) -> None:
    """Make exactly these parameters require a gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def attach(model: nn.Module, config: LoraConfig, where: str) -> Any:
    """Add low-rank adapters to the model, in place; then they alone require a gradient.

    Adapters start as zero (B is zero); A is drawn from torch's generator.

    Args:
        model: a causal LM of transformers.
        config: rank, scale and modules.
        where: the key of the configuration that holds them, for the message.

    Returns:
        The argument of `merge`.

    Raises:
        UserError: no module of the model has such a name.
    """
    from peft import LoraConfig as PeftConfig
    from peft.tuners.lora import LoraModel

    wanted = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.targets,
    )
    try:
        with warnings.catch_warnings():  # about GPT-2's transposed weights, which peft then handles
            warnings.simplefilter("ignore", UserWarning)
            tuner = LoraModel(model, {"default": wanted}, "default")
    except (ValueError, TypeError, RuntimeError, re.error) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())[:300]}") from None
    whole: Any = model
    ends = [whole.get_input_embeddings(), whole.get_output_embeddings()]
    if tied_head(model) and any(hasattr(end, "base_layer") for end in ends):
        raise UserError(
            f"{where}.targets: the embedding and the head of this model are one tensor, which no "
            "adapter can be merged into; leave both out"
        )
    return tuner


def merge(tuner: Any) -> None:
    """Add the adapters to the weights and remove them: the model is an ordinary one again."""
    model = tuner.model
    tuner.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def without_adapters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's own weights, under their names without adapters."""
    return {k.replace(_BASE, ""): v for k, v in state.items() if not _ADAPTER.search(k)}


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapters' parameters by name; none if the model has none."""
    return {name: p for name, p in model.named_parameters() if _ADAPTER.search(name)}


@torch.no_grad()
def load_adapters(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load values into a model's adapters.

    Raises:
        KeyError: the model has others.
    """
    for name, parameter in adapters(model).items():
        parameter.copy_(state[name])
