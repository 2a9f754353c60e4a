"""Interface of a training method: hooks around the steps of a stage, its options and its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from geomix.config.methods import MethodOptions
from geomix.data.batch import Batch, Reduction
from geomix.data.example import TokenisedExample
from geomix.models.distributed import Workers
from geomix.models.load import LoadedModel

Tensors = Mapping[str, Tensor]
"""Tensors by the parameter's name."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """Stage that a method acts in; read-only.

    Attributes:
        index: from 0.
        name: as in its folder.
        seed: of the run. A method draws from generators of its own, never from torch's.
        loaded: model and tokenizer; the weights are those at the stage's start or end.
        reduction: of the stage's loss.
        sets: the stage's own and mixed-in examples, by set.
        earlier: the own examples of the stages before, by set, in their order.
        workers: the processes that share the training.
    """

    index: int
    name: str
    seed: int
    loaded: LoadedModel
    reduction: Reduction
    sets: Mapping[str, Sequence[TokenisedExample]]
    earlier: Mapping[str, Sequence[TokenisedExample]]
    workers: Workers


@dataclass(frozen=True, slots=True)
class StepContext:
    """Present step; read-only.

    Attributes:
        stage: index from 0.
        step: from 0.
        lr: learning rate of this step.
        optimiser: AdamW; its state holds the second moments.
        by_source: returns the gradients of the batch's sources at the present weights, by source;
            they sum to the batch's. Costs one more pass.
        recompute: returns the batch's gradient at the present weights, with the same dropout. Costs
            one more pass.
    """

    stage: int
    step: int
    lr: float
    optimiser: torch.optim.Optimizer
    by_source: Callable[[], Mapping[str, Tensors]]
    recompute: Callable[[], Tensors]


@dataclass(frozen=True, slots=True)
class MethodCost:
    """Cost of a method, for the dry run.

    Attributes:
        copies: of the trained weights, in float32, held while the stage trains.
        passes: additional forward and backward passes over a batch, per step.
        note: further remarks.
    """

    copies: float = 0.0
    passes: float = 0.0
    note: str = ""


class Method:
    """Training method. The first line of a method's docstring is its summary.

    All hooks are optional. A method changes only what its hook states, draws from random generators
    of its own, and gives the same result in one process and in several.

    Attributes:
        options: from the stage's `method`.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    """Keys in addition to `name`, validated with file and line."""

    sharded: ClassVar[bool] = False
    """True if it works on shards of parameters (`parallel: fsdp`); else it is rejected there."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def begin_stage(self, stage: StageContext) -> None:
        """Read the model before the stage's first step; not called if the stage resumes."""

    def begin_step(self, step: StepContext) -> None:
        """Receive the context of the step."""

    def extra_loss(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Return a loss to add to a micro-batch's, in nats, weighted like `batch.weights`.

        Args:
            batch: of one source.
            logits: that predict its target tokens, `(P, V)`.
        """

    def transform_gradients(self, gradients: Tensors) -> None:
        """Change the whole batch's gradients in place, after accumulation, before clipping."""

    def after_update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Read the updated weights; may write them."""

    def end_stage(self, stage: StageContext) -> None:
        """Read the model after the stage's last step."""

    def logged(self) -> dict[str, float]:
        """Return the last step's numbers for `metrics.jsonl`."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return everything that it carries from step to step: part of the checkpoint."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Restore the state that `state` returned."""

    @classmethod
    def cost(cls, options: Any) -> MethodCost:
        """Return its cost."""
        return MethodCost()
