"""Base models as far as they are known here, with the memory of each way to train them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from geomix.config.training import TrainConfig
from geomix.gradients.capture import module_names
from geomix.models.forward import takes_positions
from geomix.models.layers import decoder_layers
from geomix.models.load import BUILTIN
from geomix.models.meta import local_config, local_tokenizer, weightless
from geomix.planning.memory import Memory, MicroBatch, Size, memory_of, size_of
from geomix.training.setup import checkpointing
from geomix.training.trainable import attach, set_trained, trained_names
from geomix.util.progress import phase

LARGE = 1_000_000_000
"""Parameters from which batches of similar size share one measurement, and each measurement is
reported. Such a model's weights outweigh the error: at most an eighth of the activations."""


@dataclass(frozen=True, slots=True)
class Base:
    """Facts about a base model on this machine.

    Attributes:
        config: of transformers; None if it is neither here nor shipped.
        tokenizer: its own, or the built-in one instead.
        own_tokenizer: which of the two.
        packs: whether rows can hold several examples: whether it takes positions.
    """

    config: Any | None
    tokenizer: Any
    own_tokenizer: bool
    packs: bool


@cache
def base_of(name: str) -> Base:
    """Inspect a model, never through the network.

    Raises:
        UserError: it is here and cannot be used.
    """
    config, own = local_config(name), local_tokenizer(name)
    tokenizer = own or local_tokenizer(BUILTIN)
    if config is None:
        return Base(None, tokenizer, own is not None, packs=True)
    with torch.device("meta"):
        model = weightless(config, torch.float32)
    return Base(config, tokenizer, own is not None, takes_positions(model))


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything that determines a model's memory in training, except the batch.

    Attributes:
        model: its name.
        dtype: of its weights.
        precision: of the forward pass.
        trained: the part of a stage's `train` that selects the trained parameters, as JSON.
        checkpointing: whether activations are recomputed.
    """

    model: str
    dtype: torch.dtype
    precision: str
    trained: str
    checkpointing: bool

    def prepare(self, model: nn.Module) -> nn.Module:
        """Make those parameters trainable, in place."""
        train = TrainConfig.model_validate_json(self.trained)
        if train.lora is not None:
            attach(model, train.lora, "train.lora.targets")
        else:
            set_trained(model, trained_names(model, train.trainable, "train.trainable"))
        checkpointing(model, on=self.checkpointing)
        return model


@cache
def memory_in(kind: Kind, micro: MicroBatch) -> Memory:
    """Return the memory of a training step; for a large model that of a slightly larger batch."""
    size = size_in(kind)
    if size.parameters >= LARGE:
        micro = MicroBatch(*map(rounded_up, (micro.rows, micro.width, micro.targets)))
        return _large(kind, micro)
    return memory_of(base_of(kind.model).config, micro, kind.precision, kind.dtype, kind.prepare)


def rounded_up(count: int) -> int:
    """Round a number up to its four highest bits, so that batches of similar size coincide."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


@cache
def _large(kind: Kind, micro: MicroBatch) -> Memory:
    """Measure a large model, which takes seconds, with a progress line."""
    what = f"measuring a step of {kind.model}: {micro.rows} × {micro.width} tokens"
    base = base_of(kind.model).config
    with phase(f"{what}, {kind.precision}{', checkpointing' * kind.checkpointing}", long=True):
        return memory_of(base, micro, kind.precision, kind.dtype, kind.prepare)


@cache
def size_in(kind: Kind) -> Size:
    """Return the size of a model as it is trained."""
    with torch.device("meta"):
        return size_of(kind.prepare(weightless(base_of(kind.model).config, kind.dtype)))


@cache
def groups_in(kind: Kind) -> tuple[int, int]:
    """Return the bytes of parameters outside of the decoder's layers, and of its largest layer."""
    with torch.device("meta"):
        model = weightless(base_of(kind.model).config, kind.dtype)
    whole = sum(p.nbytes for p in model.parameters())
    layers = [sum(p.nbytes for p in layer.parameters()) for _, layer in decoder_layers(model)]
    return whole - sum(layers), max(layers)


@cache
def modules_in(name: str, patterns: tuple[str, ...]) -> int:
    """Return how many modules of a model match any of the patterns."""
    with torch.device("meta"):
        return len(module_names(weightless(base_of(name).config, torch.float32), patterns))
