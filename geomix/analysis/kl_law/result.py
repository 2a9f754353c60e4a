"""Points of `geomix analyze kl-law`: an arm, a seed and a stage each, and their fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomix.measures.cross_validation import Validated
from geomix.models.set_divergence import SetDivergence

START, BASE = "start", "base"
"""References: the model at the stage's start, and θ_0."""

DIRECTIONS = ("forward", "reverse")
"""KL(reference ‖ model), and KL(model ‖ reference)."""

LENGTH = "‖Δθ‖"

NEW = "new task"
"""The stage's own set, whatever its name."""


@dataclass(frozen=True, slots=True)
class Key:
    """A predictor.

    Attributes:
        on: set of a divergence, `NEW` for the stage's own; "" for ‖Δθ‖.
        to: `START` or `BASE`; "" for ‖Δθ‖.
        direction: of `DIRECTIONS`; "" for ‖Δθ‖.
    """

    on: str = ""
    to: str = ""
    direction: str = ""

    def __str__(self) -> str:
        if not self.on:
            return LENGTH
        more = [self.direction] * (self.direction != DIRECTIONS[0])
        more += ["to θ_0"] * (self.to == BASE)
        return " ".join([f"KL on the {self.on}" if self.on == NEW else f"KL on {self.on}", *more])


LAW = Key(NEW, START, DIRECTIONS[0])
"""The law's predictor."""

RIVAL = Key()


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One later stage of one arm of one seed.

    Attributes:
        arm: label of the arm.
        seed: of the run.
        run: folder of the given run.
        stage: index from 0.
        new: name of the stage's own set.
        forgotten: by outcome: `nats` an answer, `exact_match` in points; positive is forgetting.
        exact: exact match at the stage's start and end, percent.
        length: ‖Δθ‖ over the stage.
        divergences: by set and reference.
    """

    arm: str
    seed: int
    run: str
    stage: int
    new: str
    forgotten: Mapping[str, float]
    exact: tuple[float, float]
    length: float
    divergences: Mapping[tuple[str, str], SetDivergence]

    def value(self, key: Key) -> float | None:
        """Return a predictor, nats a token or ‖Δθ‖; None if it was not measured."""
        if not key.on:
            return self.length
        name = self.new if key.on == NEW else key.on
        found = self.divergences.get((name, key.to))
        return None if found is None else found.per_token(key.direction)

    def measured(self) -> Iterator[Key]:
        """Yield the predictors that it has."""
        yield RIVAL
        for name, to in self.divergences:
            for direction in DIRECTIONS:
                yield Key(NEW if name == self.new else name, to, direction)


@dataclass(frozen=True, slots=True, eq=False)
class KLLaw:
    """Result of the analysis.

    Attributes:
        name: the set that is forgotten.
        examples: number of its examples that were scored.
        points: all that were measured.
        leave: what a point shares with none of those that predict it.
        form: of the fits that are compared.
        fits: by predictor, outcome and form; empty without enough points.
        lacking: why there are no fits; "" if there are.
        blocks: whether the null exchanges whole arms.
    """

    name: str
    examples: int
    points: Sequence[Point]
    leave: str
    form: str
    fits: Mapping[tuple[Key, str, str], Validated]
    lacking: str
    blocks: bool

    @property
    def arms(self) -> list[str]:
        """Labels of the arms."""
        return list(dict.fromkeys(point.arm for point in self.points))

    @property
    def units(self) -> list[object]:
        """Unit of each point for intervals: its seed, or its arm where only arms are left out."""
        return [point.arm if self.leave == "arms" else point.seed for point in self.points]

    @property
    def unit(self) -> str:
        """Name of a unit, in the plural."""
        return "arms" if self.leave == "arms" else "seeds"

    @property
    def keys(self) -> list[Key]:
        """Predictors that every point has: the law's, ‖Δθ‖, then the other divergences."""
        return keys_of(self.points)

    def values(self, key: Key) -> NDArray[np.float64]:
        """Return a predictor of every point, `(n,)`."""
        return np.array([point.value(key) for point in self.points], dtype=np.float64)

    def fit(self, key: Key, outcome: str = "nats", form: str = "") -> Validated | None:
        """Return a fit, of the compared form unless another one is given."""
        return self.fits.get((key, outcome, form or self.form))

    def is_rival(self, key: Key) -> bool:
        """Return whether a predictor says anything new: KL on the forgotten set nearly is it."""
        return key.on != self.name

    def named(self, key: Key) -> str:
        """Return a predictor's name, with the new task's own if there is one only."""
        news = {point.new for point in self.points}
        return str(key).replace(f"the {NEW}", news.pop()) if len(news) == 1 else str(key)


def keys_of(points: Sequence[Point]) -> list[Key]:
    """Return the predictors that every point has, see `KLLaw.keys`."""
    found = dict.fromkeys([LAW, *(key for point in points for key in point.measured())])
    return [key for key in found if all(point.value(key) is not None for point in points)]
