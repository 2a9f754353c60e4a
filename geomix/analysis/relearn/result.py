"""Courses of retraining, and what they say of each fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomix.experiments.retrain import FactScores
from geomix.measures.relearning import Bools, Savings, State, savings, states

RANDOM = "random"
"""Null of a step of random signs, as long in every tensor as that of the cues."""

ANOTHER = "another"
"""Null of a model that learnt another set, then the later stages."""

UNSEEN = "unseen"
"""Relearning of as many facts that were never trained on, the control of the savings."""


@dataclass(frozen=True, slots=True, eq=False)
class CueCourse:
    """Scores of a set over the steps on some cues.

    Attributes:
        kind: the cues: a set's name, or `random`, `θ_0`, `another`.
        draw: index of the draw.
        rate: in units of the last stage's.
        cues: facts of the set that were retrained in this draw, or would have been: `(F,)`. They
            are never scored, in no course of the draw.
        steps: of the evaluations, from 0: `(S,)`.
        right: exact match of each fact there, `(S, F)`.
        bits: `(S, F)`.
        later: exact match on the last stage's set, percent, `(S,)`; nan where not scored.
    """

    kind: str
    draw: int
    rate: float
    cues: Bools
    steps: Sequence[int]
    right: Bools
    bits: NDArray[np.float64]
    later: Sequence[float]

    def share(self, facts: Bools) -> NDArray[np.float64]:
        """Return the exact match on some facts that are no cues, percent, `(S,)`."""
        found: NDArray[np.float64] = 100 * self.right[:, facts & ~self.cues].mean(axis=1)
        return found

    def mean_bits(self, facts: Bools) -> NDArray[np.float64]:
        """Return the mean bits of some facts that are no cues, `(S,)`."""
        found: NDArray[np.float64] = self.bits[:, facts & ~self.cues].mean(axis=1)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Relearnt:
    """Course of training on a whole set.

    Attributes:
        start: name of the model that it begins with.
        name: the set.
        steps: of the evaluations, from 0.
        exact: exact match there, percent.
        bits: mean bits there.
        reached: steps to the criterion, interpolated; nan if not reached within the budget.
    """

    start: str
    name: str
    steps: Sequence[int]
    exact: Sequence[float]
    bits: Sequence[float]
    reached: float


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One arm of one seed.

    Attributes:
        seed: of the run.
        run: its folder.
        texts: prompt and answer of each fact, `(F,)`.
        known: whether bits are entropy less code length; else they are minus the code length.
        scores: of the set's facts at `base`, `start` (end of its own stage) and `end`.
        named: the step and rate of the rule.
        courses: of the cues and of their nulls.
        relearnt: of the whole set, and of as many unseen facts.
        budget: most steps of these.
        lacking: why a null is absent, by its kind.
    """

    seed: int
    run: str
    texts: Sequence[tuple[str, str]]
    known: bool
    scores: Mapping[str, FactScores]
    named: tuple[int, float]
    courses: Sequence[CueCourse]
    relearnt: Sequence[Relearnt]
    budget: int
    lacking: Mapping[str, str]

    @property
    def lost(self) -> Bools:
        """Facts that were right at the end of the own stage and are wrong at last, `(F,)`."""
        return self.scores["start"].right & ~self.scores["end"].right

    @property
    def kept(self) -> Bools:
        """Facts that are right at both, `(F,)`."""
        return self.scores["start"].right & self.scores["end"].right

    @property
    def kinds(self) -> list[str]:
        """Kinds of the courses, the set's own cues first."""
        return list(dict.fromkeys(course.kind for course in self.courses))

    def of(self, kind: str, rate: float) -> list[CueCourse]:
        """Return the courses of a kind at a rate, one a draw."""
        return [one for one in self.courses if (one.kind, one.rate) == (kind, rate)]

    def recovered(self, kind: str, step: int, rate: float) -> float:
        """Return the share of lost facts that are right after a step, mean over draws, percent."""
        found = [
            float(one.share(self.lost)[list(one.steps).index(step)]) for one in self.of(kind, rate)
        ]
        return float(np.mean(found)) if found else float("nan")

    def best_null(self, name: str) -> tuple[str, float]:
        """Return the null that brings back most at the named step and rate, and its percent."""
        found = {kind: self.recovered(kind, *self.named) for kind in self.kinds if kind != name}
        best = max(found, key=lambda kind: found[kind], default="")
        return best, found.get(best, float("nan"))

    def states(self, kind: str) -> list[State]:
        """Return the state of each fact if the courses of a kind are those of the rule, `(F,)`."""
        step, rate = self.named
        courses = self.of(kind, rate)
        count = len(self.texts)
        returned = [one.right[list(one.steps).index(step)] for one in courses]
        cues = [one.cues for one in courses]
        shape = (len(courses), count)
        return states(
            self.scores["start"].right,
            self.scores["end"].right,
            np.array(returned, dtype=np.bool_).reshape(shape),
            np.array(cues, dtype=np.bool_).reshape(shape),
        )

    def called_hidden(self, kind: str) -> float:
        """Return the share of lost facts that the rule calls hidden, percent."""
        lost = int(self.lost.sum())
        return 100 * self.states(kind).count("hidden") / lost if lost else float("nan")

    def saved(self, name: str) -> dict[str, tuple[Savings, Relearnt, Relearnt]]:
        """Return the savings in relearning a set, with the course and the one compared with.

        By name: `savings` against the base model, `net` against unseen facts.
        """
        own = next((one for one in self.relearnt if one.name == name), None)
        if own is None:
            return {}
        found = {}
        for other in self.relearnt:
            if other is not own:
                key = "savings" if other.name == name else "net"
                found[key] = (savings(own.reached, other.reached, self.budget), own, other)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One arm, a member a seed."""

    label: str
    members: Sequence[Member]


@dataclass(frozen=True, slots=True, eq=False)
class Relearn:
    """Result of the analysis.

    Attributes:
        name: the set.
        start: name of the checkpoint at the end of its own stage.
        end: name of the last checkpoint.
        later: name of the last stage's set.
        arms: all that were measured.
    """

    name: str
    start: str
    end: str
    later: str
    arms: Sequence[Arm]

    @property
    def members(self) -> list[Member]:
        """All members, arm by arm."""
        return [member for arm in self.arms for member in arm.members]
