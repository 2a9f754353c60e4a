"""Training and stopping of a stage: the keys under `train` and `stop`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    Field,
    NonNegativeFloat,
    PlainValidator,
    PositiveFloat,
    ValidationInfo,
    model_validator,
)

from geomix.config.data import Count, Strict


def _named(value: object, info: ValidationInfo) -> object:
    """Validate one word or a list of texts, with a single message if it is neither."""
    word = {"trainable": "all", "targets": "all-linear"}[str(info.field_name)]
    texts = isinstance(value, list) and value and all(isinstance(v, str) and v for v in value)
    if value == word or texts:
        return value
    raise ValueError(f"give '{word}' or a list of texts that is not empty")


Names = Annotated[
    Any, PlainValidator(_named, json_schema_input_type=str | Annotated[list[str], Len(1)])
]
"""One word that stands for all, or a list of names."""


class StopConfig(Strict):
    """End of a stage: after its epochs, or earlier by a rule, whichever comes first.

    The learning rate's schedule spans all epochs, even if a rule ends the stage earlier.
    """

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Maximum number of passes over the stage's examples."""
    steps: Count | None = None
    """Maximum number of optimiser steps; replaces `epochs`."""
    steps_of: Annotated[str, Field(min_length=1)] | None = None
    """Run as many steps as the same stage of another run took: its folder, or the name of an arm
    that is trained before this one. Replaces `epochs` and `steps`."""
    loss_below: PositiveFloat | None = None
    """Loss of a step, in nats, that counts as learnt; the paper's is 1e-4."""
    times: Count = 10
    """Number of steps that must have a loss below that."""
    consecutive: bool = False
    """Require these steps to be consecutive; the paper's code does not."""
    exact_match: Annotated[float, Field(gt=0, le=100)] | None = None
    """Exact match on the stage's own examples, in percent, that ends the stage; checked whenever
    retention is measured."""
    patience: Count | None = None
    """Epochs without a new lowest mean training loss after which the stage ends."""

    @property
    def early(self) -> bool:
        """True if a rule may end the stage before its epochs."""
        return any(r is not None for r in (self.loss_below, self.exact_match, self.patience))


def stop_text(stop: StopConfig) -> str:
    """Describe a stage's end in few words: `20`, or `≤ 100, loss < 0.0001 ×10`."""
    whole = str(stop.epochs)
    if stop.steps_of is not None:
        whole = f"steps of {stop.steps_of}"
    elif stop.steps is not None:
        whole = f"{stop.steps} steps"
    rules = [f"≤ {whole}" if stop.early else whole]
    if stop.loss_below is not None:
        row = " in a row" * stop.consecutive
        rules.append(f"loss < {stop.loss_below:g} ×{stop.times}{row}")
    if stop.exact_match is not None:
        rules.append(f"exact ≥ {stop.exact_match:g} %")
    if stop.patience is not None:
        rules.append(f"patience {stop.patience}")
    return ", ".join(rules)


class LoraConfig(Strict):
    """Low-rank adapters trained in place of the weights (LoRA, Hu et al. 2021), through peft.

    They are merged into the weights at the stage's end, so every stage starts and ends with a
    complete model.
    """

    rank: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Rank of each adapter."""
    alpha: PositiveFloat = 16.0
    """Numerator of the adapter's scale, alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    targets: Names = "all-linear"
    """Modules that get an adapter: `all-linear` (all but the output head), or a list of suffixes of
    module names, such as `[q_proj, v_proj]`."""


class TrainConfig(Strict):
    """Training of a stage: given at the top for all stages; a stage's own keys override these."""

    lr: PositiveFloat = 5e-5
    """Peak learning rate of AdamW."""
    batch_size: Count = 32
    """Examples in a step, including mixed-in ones."""
    micro_batch_size: Count = 128
    """Most examples in one forward pass; larger batches are accumulated from several, with the same
    gradient. Smaller values need less memory."""
    pack: Count | None = 128
    """Width, in tokens, of rows that several examples of one source share; null gives each its own
    row. A longer example widens the rows. The gradient is the same up to rounding."""
    loss: Literal["token", "example"] = "token"
    """Reduction: mean over target tokens, or over examples of each one's token mean."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Shape of the learning rate after the warm-up; `wsd` (warm-up, stable, decay) stays at its
    peak, then falls linearly to zero."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the steps over which `wsd` decays."""
    schedule_over: Literal["stage", "run"] = "stage"
    """`stage`: warm-up and schedule restart in every stage; `run`: one schedule spans all
    stages."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """AdamW's decay rates of the first and second moment."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of a step's gradient; null does not clip."""
    precision: Literal["fp32", "bf16", "bf16-pure"] = "fp32"
    """`bf16` computes in bfloat16 and keeps float32 weights; `bf16-pure` keeps weights, gradients
    and optimiser in bfloat16 too, so that small updates are rounded away."""
    gradient_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of storing them."""
    trainable: Names = "all"
    """Parameters that train: `all`, or those that match any of a list of patterns: `layers:1-4`,
    `layers:8` (the first is 1), `module:mlp` (a part of the name within the layer), `embedding`
    (everything before the layers), `head` (the output head), or a name with `*`, such as
    `*.mlp.up_proj.weight`."""
    lora: LoraConfig | None = None
    """Low-rank adapters that train in place of the parameters; null for none."""
    update_shares: bool = False
    """Log each source's share of every update: one first moment of Adam per source, with the common
    second moment and clipping. Needs one gradient's memory per source."""

    @model_validator(mode="after")
    def _one_choice(self) -> TrainConfig:
        if self.lora is not None and self.trainable != "all":
            raise ValueError("trainable and lora exclude each other: adapters train alone")
        return self
