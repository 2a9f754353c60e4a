"""Training of an arm's model from any weights, in memory; nothing of the run changes.

Each step is the engine's (`geomix.training.step.Stepper`), with a fresh AdamW, at a constant rate,
without warm-up, weight decay and methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from geomix.config.training import TrainConfig
from geomix.data.example import TokenisedExample
from geomix.experiments.precise import PreciseArm
from geomix.gradients.vectors import Vector
from geomix.measures.scores.bits import code_length
from geomix.models.score import score
from geomix.training.finite import check_finite
from geomix.training.optimiser import make_optimiser
from geomix.training.step import Stepper, row_width, seed_dropout
from geomix.training.trainable import set_trained, trained_names

Batch = Sequence[TokenisedExample]


def plain_training(train: TrainConfig, factor: float = 1.0) -> TrainConfig:
    """Return a stage's training at a constant rate, without decay of the weights.

    Args:
        train: of the stage.
        factor: of its peak rate.
    """
    changed = {"lr": train.lr * factor, "weight_decay": 0.0, "update_shares": False}
    return train.model_copy(update=changed)


def retrained(
    arm: PreciseArm, weights: Vector, train: TrainConfig, stage: int, batches: Iterable[Batch]
) -> Iterator[int]:
    """Train the arm's model from some weights; yield the number of steps done after each.

    The model holds the new weights whenever it yields; the given ones stay as they are.

    Args:
        arm: whose model trains.
        weights: of the parameters that any stage trains.
        train: by `plain_training`.
        stage: index of the stage whose trained parameters and dropout are used.
        batches: one a step.

    Raises:
        UserError: the loss is not finite.
    """
    model, config = arm.loaded.model, arm.config
    arm.move_to({name: tensor.clone() for name, tensor in weights.items()})
    set_trained(model, trained_names(model, train.trainable, f"stages[{stage}].train.trainable"))
    optimiser = make_optimiser(model, train)
    width = row_width(train, arm.loaded)
    stepper = Stepper(model, optimiser, train, arm.loaded.pad_id, arm.loaded.device, width)
    for step, batch in enumerate(batches):
        reseed = partial(seed_dropout, config.seed, stage, step)
        reseed()
        model.train()
        result = stepper.step({"relearnt": batch}, (stage, step), reseed)
        model.eval()
        check_finite("relearnt", step + 1, loss=result.loss)
        yield step + 1


def epochs_of(
    examples: Batch, batch_size: int, seed: Sequence[int], steps: int
) -> Iterator[list[TokenisedExample]]:
    """Yield batches of whole epochs, each in an order of its own.

    Args:
        examples: the set.
        batch_size: examples in a step.
        seed: of the orders: two sets of one size have the same.
        steps: number of batches.
    """
    done = 0
    for epoch in range(steps):
        order = np.random.default_rng([*seed, epoch]).permutation(len(examples))
        for start in range(0, len(order), batch_size):
            if done == steps:
                return
            done += 1
            yield [examples[i] for i in order[start : start + batch_size]]


@dataclass(frozen=True, slots=True, eq=False)
class FactScores:
    """Scores of each fact of a set at one model.

    Attributes:
        right: exact match, `(F,)`.
        bits: entropy of the fact, where its source states it, less its code length: `(F,)`.
    """

    right: NDArray[np.bool_]
    bits: NDArray[np.float64]

    @property
    def percent(self) -> float:
        """Share of exact matches, 0 to 100; nan of no facts."""
        return 100 * float(np.mean(self.right)) if len(self.right) else math.nan


def fact_scores(arm: PreciseArm, examples: Batch) -> FactScores:
    """Score a set at the present weights, as greedy decoding would."""
    train = arm.config.stages[-1].train
    size = arm.config.evaluate.batch_size
    width = row_width(train, arm.loaded)
    answers = score(arm.loaded, examples, size, width, exact_only=True)
    return FactScores(
        np.array([one.exact for one in answers], dtype=np.bool_),
        np.array([(one.entropy or 0.0) - code_length(one.token_nll) for one in answers]),
    )
