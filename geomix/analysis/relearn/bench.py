"""One arm's retraining: cues, their nulls, and the whole set anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from geomix.analysis.relearn import RATES, STEPS, Asked
from geomix.analysis.relearn.result import ANOTHER, RANDOM, CueCourse, Relearnt
from geomix.config.names import HELD_OUT, checkpoint_name, set_name
from geomix.data.example import TokenisedExample
from geomix.experiments.precise import PreciseArm
from geomix.experiments.retrain import (
    FactScores,
    epochs_of,
    fact_scores,
    plain_training,
    retrained,
)
from geomix.gradients.vectors import Vector
from geomix.measures.relearning import Bools, cue_count, draw_cues, steps_to

_GROWTH = 1.2
"""Ratio of the steps of two neighbouring evaluations of relearning a whole set."""

_SEED = 0x52454C  # REL


@dataclass(eq=False)
class Bench:
    """An arm's model, sets and weights for retraining.

    Attributes:
        arm: its model and checkpoints.
        stage: index of the set's own stage.
        facts: the set.
        later: the last stage's set.
        held_out: unseen facts of the first stage's source, as many as there are.
        base: θ_0.
        end: the weights after the last stage.
        another: the last weights of a run that learnt another set; None without one.
    """

    arm: PreciseArm
    stage: int
    facts: Sequence[TokenisedExample]
    later: Sequence[TokenisedExample]
    held_out: Sequence[TokenisedExample]
    base: Vector
    end: Vector
    another: Vector | None = None

    def scores(self, weights: Vector) -> FactScores:
        """Score the set at some weights."""
        self.arm.move_to(weights)
        return fact_scores(self.arm, self.facts)

    def course_count(self, lost: int, asked: Asked) -> int:
        """Return the number of courses that `courses` yields, for as many lost facts."""
        count = cue_count(lost)
        if not count:
            return 0
        sets = sum(len(examples) >= count for examples in (self.held_out, self.later))
        return asked.draws * len(RATES) * (3 + sets + (self.another is not None))

    def courses(self, lost: Bools, asked: Asked) -> Iterator[CueCourse]:
        """Yield the courses of the cues and of their nulls: draw by draw, rate by rate.

        Args:
            lost: facts that may be cues, `(F,)`.
            asked: the options.
        """
        count = cue_count(int(lost.sum()))
        seed = (self.arm.config.seed, _SEED, self.stage)
        if not count:
            return
        own = set_name(self.stage)
        for draw, cues in enumerate(draw_cues(lost, count, asked.draws, seed)):
            chosen = [fact for fact, cue in zip(self.facts, cues, strict=True) if cue]
            rng = np.random.default_rng([*seed, 1 + draw])
            others = {
                HELD_OUT: _some(self.held_out, count, rng),
                set_name(len(self.arm.stages) - 1): _some(self.later, count, rng),
            }
            for rate in RATES:
                at = (draw, rate, cues)
                lengths: dict[int, dict[str, float]] = {}
                yield self._course(own, at, self.end, chosen, lengths)
                for kind, examples in others.items():
                    if examples:
                        yield self._course(kind, at, self.end, examples)
                yield self._random(at, lengths)
                yield self._course(checkpoint_name(0), at, self.base, chosen)
                if self.another is not None:
                    yield self._course(ANOTHER, at, self.another, chosen)

    def _course(
        self,
        kind: str,
        at: tuple[int, float, Bools],
        weights: Vector,
        cues: Sequence[TokenisedExample],
        lengths: dict[int, dict[str, float]] | None = None,
    ) -> CueCourse:
        """Train on some cues and score the set; only with `lengths` the last stage's set, too.

        Args:
            kind: of the course.
            at: draw, rate, and the facts that are not scored.
            weights: to begin with.
            cues: of every step.
            lengths: receives the norm of the displacement of each tensor, by step.
        """
        last = len(self.arm.stages) - 1
        train = plain_training(self.arm.config.stages[last].train, at[1])
        scored = [self._scored(weights, both=lengths is not None)]
        for step in retrained(self.arm, weights, train, last, repeat(list(cues), STEPS[-1])):
            if step not in STEPS:
                continue
            if lengths is not None:
                here = self.arm.here()
                lengths[step] = {n: float((here[n] - weights[n]).norm()) for n in weights}
            scored.append(self._scored(None, both=lengths is not None))
        return self._made(kind, at, scored)

    def _random(
        self, at: tuple[int, float, Bools], lengths: Mapping[int, Mapping[str, float]]
    ) -> CueCourse:
        """Score the set along random signs, as far in every tensor as the cues went."""
        entropy = np.random.SeedSequence([self.arm.config.seed, _SEED, self.stage, at[0]])
        seed = int(entropy.generate_state(1, np.uint64)[0]) >> 1
        signs = torch.Generator().manual_seed(seed)
        drawn = {
            name: torch.randint(0, 2, tensor.shape, generator=signs, dtype=torch.int8) * 2 - 1
            for name, tensor in self.end.items()
        }
        scored = [self._scored(self.end)]
        for step in STEPS:
            moved: dict[str, Tensor] = {}
            for name, tensor in self.end.items():
                size = lengths[step][name] / tensor.numel() ** 0.5
                moved[name] = tensor + drawn[name].to(tensor) * size
            scored.append(self._scored(moved))
        return self._made(RANDOM, at, scored)

    def _scored(self, weights: Vector | None, *, both: bool = False) -> tuple[FactScores, float]:
        if weights is not None:
            self.arm.move_to(weights)
        later = fact_scores(self.arm, self.later).percent if both else float("nan")
        return fact_scores(self.arm, self.facts), later

    def _made(
        self, kind: str, at: tuple[int, float, Bools], scored: Sequence[tuple[FactScores, float]]
    ) -> CueCourse:
        draw, rate, cues = at
        right = np.array([one.right for one, _ in scored])
        bits = np.array([one.bits for one, _ in scored])
        later = [value for _, value in scored]
        return CueCourse(kind, draw, rate, cues, (0, *STEPS), right, bits, later)

    def relearnt(self, asked: Asked, budget: int) -> Iterator[Relearnt]:
        """Yield the courses of training on the whole set, from the last weights and from θ_0.

        Then that of as many unseen facts from the last weights, if there are as many.
        """
        if not budget:
            return
        own, last = set_name(self.stage), checkpoint_name(len(self.arm.stages))
        yield self._relearnt(last, own, self.end, self.facts, asked, budget)
        yield self._relearnt(checkpoint_name(0), own, self.base, self.facts, asked, budget)
        if len(self.held_out) >= len(self.facts):
            unseen = self.held_out[: len(self.facts)]
            yield self._relearnt(last, HELD_OUT, self.end, unseen, asked, budget)

    def _relearnt(
        self,
        start: str,
        name: str,
        weights: Vector,
        facts: Sequence[TokenisedExample],
        asked: Asked,
        budget: int,
    ) -> Relearnt:
        config = self.arm.config
        train = plain_training(config.stages[self.stage].train)
        self.arm.move_to(weights)
        steps, found = [0], [fact_scores(self.arm, facts)]
        order = (config.seed, _SEED, self.stage)
        due = 1
        if found[0].percent < asked.criterion:
            batches = epochs_of(facts, train.batch_size, order, budget)
            for step in retrained(self.arm, weights, train, self.stage, batches):
                if step < due and step < budget:
                    continue
                due = max(step + 1, round(_GROWTH * step))
                steps.append(step)
                found.append(fact_scores(self.arm, facts))
                if found[-1].percent >= asked.criterion:
                    break
        exact = [one.percent for one in found]
        bits = [float(one.bits.mean()) for one in found]
        return Relearnt(start, name, steps, exact, bits, steps_to(steps, exact, asked.criterion))


def _some(
    examples: Sequence[TokenisedExample], count: int, rng: np.random.Generator
) -> list[TokenisedExample]:
    """Draw as many examples; none if there are fewer."""
    if len(examples) < count:
        return []
    return [examples[i] for i in rng.permutation(len(examples))[:count]]
