"""What a training method is: hooks around the steps of a stage, its options and its cost."""

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
"""By the parameter's name."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """The stage that a method acts in; read-only.

    Attributes:
        index: from 0.
        name: as its folder has it.
        seed: of the run. A method draws from generators of its own, never from torch's.
        loaded: model and tokenizer; the weights are those that the stage begins or ends with.
        reduction: of the stage's loss.
        sets: the stage's own examples and what is mixed in, by set.
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
    """The step that is being taken; read-only.

    Attributes:
        stage: index from 0.
        step: from 0.
        lr: learning rate of this step.
        optimiser: AdamW; its state holds the second moments.
        by_source: gives the gradients of the batch's sources at the present weights, by source;
            they sum to the batch's. One more pass.
        recompute: gives the batch's gradient at the present weights, with the same dropout. One
            more pass.
    """

    stage: int
    step: int
    lr: float
    optimiser: torch.optim.Optimizer
    by_source: Callable[[], Mapping[str, Tensors]]
    recompute: Callable[[], Tensors]


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What a method takes, for the dry run.

    Attributes:
        copies: of the trained weights, in float32, held while the stage trains.
        passes: more forward and backward passes over a batch, a step.
        note: what else to know.
    """

    copies: float = 0.0
    passes: float = 0.0
    note: str = ""


class Method:
    """A method of training. Its first line of documentation is its summary.

    All hooks may be left out. A method changes nothing but what its hook says, draws from random
    generators of its own, and gives the same in one process and in several.

    Attributes:
        options: as the stage's `method` gives them.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    """Keys beside `name`, validated with file and line."""

    sharded: ClassVar[bool] = False
    """Whether it works on shards of parameters (`parallel: fsdp`); else it is rejected there."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def begin_stage(self, stage: StageContext) -> None:
        """Look at the model before the stage's first step; not called where the stage resumes."""

    def begin_step(self, step: StepContext) -> None:
        """See what the step offers."""

    def extra_loss(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Loss that is added to a micro-batch's, in nats, weighted as `batch.weights` are.

        Args:
            batch: of one source.
            logits: that predict its target tokens, `(P, V)`.
        """

    def transform_gradients(self, gradients: Tensors) -> None:
        """Change the whole batch's gradients in place, after accumulation, before clipping."""

    def after_update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Look at the weights as the optimiser left them; may write them."""

    def end_stage(self, stage: StageContext) -> None:
        """Look at the model after the stage's last step."""

    def logged(self) -> dict[str, float]:
        """Numbers of the last step for `metrics.jsonl`."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """All that it carries from step to step: part of the checkpoint."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Take up the state that `state` gave."""

    @classmethod
    def cost(cls, options: Any) -> MethodCost:
        """What it takes."""
        return MethodCost()
