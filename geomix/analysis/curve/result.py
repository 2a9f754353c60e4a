"""Courses of a set after its own stage, and the laws fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geomix.measures.law_choice import Choice

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Course of a set in one arm of one seed, from the end of its own stage on.

    Attributes:
        seed: of the run.
        run: its folder.
        facts: examples that every evaluation scored.
        stages: index of the stage of each evaluation, `(n,)`.
        within: step within that stage, `(n,)`.
        steps: optimiser steps since the end of the own stage, `(n,)`, the first one 0.
        times: each time axis, `(n,)`, from 0; an axis that is not known is absent.
        base: mean log-probability of an answer at θ_0, nats.
        scores: `log_probability` (nats an answer), `exact_match` (%), and `bits` if measured,
            `(n,)` each.
        worst: at the end of each later stage: its index, the exact match on its own set, min-ACC
            and WC-ACC, in percent.
        lacking: why an axis is absent, by its name.
    """

    seed: int
    run: str
    facts: int
    stages: Sequence[int]
    within: Sequence[int]
    steps: Sequence[int]
    times: Mapping[str, Floats]
    base: float
    scores: Mapping[str, Floats]
    worst: Sequence[tuple[int, float, float, float]]
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def taught(self) -> float:
        """Log-probability that the own stage and those before it added, nats an answer."""
        return float(self.scores["log_probability"][0] - self.base)

    @property
    def retention(self) -> Floats:
        """R at each evaluation, `(n,)`: 1 at the first one."""
        found: Floats = (self.scores["log_probability"] - self.base) / self.taught
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Laws fitted against one time axis, or why there are none.

    Attributes:
        axis: `steps`, `tokens` or `length`.
        times: mean over seeds, above 0, `(n,)`.
        retention: R of each seed there, `(seeds, n)`.
        choice: the laws; None if none is fitted.
        why: the reason if there are none.
    """

    axis: str
    times: Floats
    retention: Floats
    choice: Choice | None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One arm, a course a seed.

    Attributes:
        label: its name.
        courses: one a seed, of the evaluations that all share.
        fitted: one a time axis.
    """

    label: str
    courses: Sequence[Course]
    fitted: Sequence[Fitted]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Result of the analysis.

    Attributes:
        name: the set.
        start: name of the checkpoint at the end of its own stage: `θ_A`.
        arms: those that were evaluated after it.
    """

    name: str
    start: str
    arms: Sequence[Arm]
