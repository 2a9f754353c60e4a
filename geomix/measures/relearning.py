"""Savings and re-alignment: whether forgotten facts are hidden or gone (pure maths).

Savings (Ebbinghaus 1885): s = 1 − n/n_0, n the optimiser steps to a criterion from the model that
forgot, n_0 from the base model. 1: nothing to relearn; 0: as if it had never been learnt.

A fact is, by this rule,

    not learnt   wrong at the end of its own stage
    kept         right there, and right after the last stage
    hidden       right there, wrong after the last stage, and right after the step and rate that
                 were named beforehand in at least half of the draws in which it was no cue
    gone         as hidden, but right in fewer of these draws
    untested     as hidden, but a cue in every draw

Shapes: F facts, D draws of cues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
State = Literal["not learnt", "kept", "hidden", "gone", "untested"]

STATES: tuple[State, ...] = ("kept", "hidden", "gone", "untested", "not learnt")

HALF = 0.5


def steps_to(steps: Sequence[int], values: Sequence[float], criterion: float) -> float:
    """Return the steps after which a value first reaches a criterion; nan if it never does.

    Args:
        steps: of the evaluations, ascending, `(n,)`.
        values: there, `(n,)`. Between two evaluations it is linear.
        criterion: the value to reach.
    """
    for i, value in enumerate(values):
        if value < criterion:
            continue
        if i == 0:
            return float(steps[0])
        share = (criterion - values[i - 1]) / (value - values[i - 1])
        return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float("nan")


@dataclass(frozen=True, slots=True)
class Savings:
    """Savings in relearning, or a bound of them.

    Attributes:
        value: s, or its bound; nan if nothing is known.
        bound: `` for s itself, `>` if the base model never reached the criterion, `<` if the model
            that forgot did not.
    """

    value: float
    bound: Literal["", ">", "<"] = ""

    def __str__(self) -> str:
        """Return `0.83`, or `> 0.83`."""
        if np.isnan(self.value):
            return "–"
        return f"{self.bound} {self.value:.2f}".strip().replace("-", "−")


def savings(steps: float, base: float, budget: float) -> Savings:
    """Return s = 1 − n/n_0.

    Args:
        steps: n, steps from the model that forgot; nan if the criterion was not reached.
        base: n_0, steps from the model compared with; likewise.
        budget: the most steps that either had.
    """
    if np.isnan(steps) and np.isnan(base):
        return Savings(float("nan"))
    if np.isnan(base):
        return Savings(1 - steps / budget, ">")
    if not base:
        return Savings(float("nan"))  # nothing was to be learnt
    return Savings(1 - budget / base, "<") if np.isnan(steps) else Savings(1 - steps / base)


def states(start: Bools, end: Bools, returned: Bools, cues: Bools) -> list[State]:
    """Return the state of each fact by the rule of this module, `(F,)`.

    Args:
        start: whether it is right at the end of its own stage, `(F,)`.
        end: whether it is right after the last stage, `(F,)`.
        returned: whether it is right after the named step and rate, `(D, F)`.
        cues: whether it was retrained in a draw, `(D, F)`; such draws do not count.
    """
    tested = (~cues).sum(axis=0)
    back = (returned & ~cues).sum(axis=0)
    found: list[State] = []
    for i in range(len(start)):
        if not start[i]:
            found.append("not learnt")
        elif end[i]:
            found.append("kept")
        elif not tested[i]:
            found.append("untested")
        else:
            found.append("hidden" if back[i] >= HALF * tested[i] else "gone")
    return found


def cue_count(lost: int, share: float = 0.1, least: int = 4) -> int:
    """Return how many of the lost facts are retrained: a share, at least 4, at most half of them.

    0 if fewer than two facts are lost: then none is left to be scored.
    """
    return min(max(least, round(share * lost)), lost // 2)


def draw_cues(lost: Bools, count: int, draws: int, seed: Sequence[int]) -> Bools:
    """Return the retrained facts of each draw, `(D, F)`.

    Args:
        lost: whether a fact may be one, `(F,)`.
        count: facts of a draw.
        draws: D.
        seed: of the draws.
    """
    rng = np.random.default_rng(list(seed))
    found = np.zeros((draws, len(lost)), dtype=np.bool_)
    for draw in found:
        draw[rng.permutation(np.flatnonzero(lost))[:count]] = True
    return found
