"""Stability gap: the dip of a set's score after its own stage, and the recovery (pure maths).

A(t) is the score at evaluation t, t counted from the end of the set's own stage. A dip that
recovers is a stability gap; one that does not is forgetting. Sources: De Lange et al. 2023
(2205.13452), section 3, for min-ACC, WC-ACC, windowed forgetting and plasticity.

What lies between two evaluations is unknown, and a minimum over more evaluations is lower by
construction: arms are compared on the same evaluation steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

WINDOW = 10
"""Evaluations within which a fall or a rise counts as one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A score's course from the end of the set's own stage on, in the unit of the score.

    Attributes:
        start: score at the end of the set's own stage.
        lowest: smallest score from there on.
        at: steps from there to the first evaluation with that score.
        final: score at the last evaluation.
        area: shortfall below the start summed over steps, by trapezoids, in score × steps.
        fall: windowed forgetting, the largest A(t) − A(t') of a t before t'.
        rise: windowed plasticity, the largest A(t') − A(t) of a t before t'.
        evaluations: their number, the one at the start included.
        widest: most steps between two neighbouring ones.
    """

    start: float
    lowest: float
    at: int
    final: float
    area: float
    fall: float
    rise: float
    evaluations: int
    widest: int

    @property
    def depth(self) -> float:
        """Fall from the start to the lowest score, 0 or more."""
        return self.start - self.lowest

    @property
    def recovered(self) -> float:
        """Rise from the lowest score to the last one, 0 or more."""
        return self.final - self.lowest


def stability_gap(steps: Sequence[int], scores: Sequence[float], window: int = WINDOW) -> Gap:
    """Measure the dip of a course of scores.

    Args:
        steps: optimiser steps since the end of the set's own stage, `(n,)`, ascending from 0.
        scores: larger is better, `(n,)`.
        window: most evaluations between the two of a windowed change.

    Raises:
        ValueError: there is no later evaluation, or the first one is not at step 0.
    """
    if len(steps) < 2 or steps[0] != 0 or len(steps) != len(scores):  # noqa: PLR2004
        raise ValueError(f"a course begins at step 0 and goes on, not {list(steps)}")
    lowest = min(scores)
    shortfall = [max(0.0, scores[0] - score) for score in scores]
    widths = [b - a for a, b in pairwise(steps)]
    changes = [
        scores[later] - scores[earlier]
        for later in range(len(scores))
        for earlier in range(max(0, later - window), later)
    ]
    return Gap(
        start=scores[0],
        lowest=lowest,
        at=steps[list(scores).index(lowest)],
        final=scores[-1],
        area=sum(w * (a + b) / 2 for w, (a, b) in zip(widths, pairwise(shortfall), strict=True)),
        fall=max(0.0, -min(changes)),
        rise=max(0.0, *changes),
        evaluations=len(scores),
        widest=max(widths),
    )


def worst_case(current: float, lowest: Sequence[float]) -> tuple[float, float]:
    """Return min-ACC and WC-ACC at the end of a stage k: `A_k / k + (1 − 1/k)·min-ACC`.

    Args:
        current: score of the stage's own set.
        lowest: of each earlier stage's set, the smallest score from the end of that stage on,
            `(k − 1,)`, at least one.
    """
    least, k = fmean(lowest), len(lowest) + 1
    return least, current / k + (1 - 1 / k) * least
