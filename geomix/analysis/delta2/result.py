"""Measurements of `delta2`, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geomix.analysis.delta2.arms import Arms, Pair
from geomix.analysis.delta2.compare import Comparison
from geomix.analysis.delta2.path import CrossTerms, Tested
from geomix.analysis.parameter_groups import Layout


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm of one seed; losses of whole sets, in nats.

    Attributes:
        label: the arm's label.
        seed: the run's seed.
        run: its folder.
        start: loss of D_A at θ_A.
        end: loss of D_A at θ_B.
        later_start: loss of D_B at θ_A.
        later_end: loss of D_B at θ_B.
        slope: g_A(θ_A)·(θ_B − θ_A), nats.
        moved: ‖θ_B − θ_A‖.
        update_share: mean share of D_M in the updates of stage 1; nan if it is not recorded.
    """

    label: str
    seed: int
    run: str
    start: float
    end: float
    later_start: float
    later_end: float
    slope: float
    moved: float
    update_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Delta2:
    """All comparisons.

    Attributes:
        arms: the arms and comparisons.
        rows: one per arm and seed.
        comparisons: by pair and seed.
        floors: two trainings of one arm on the same examples, by label and both seeds, in both
            directions.
        tested: the stage-2 condition, by label and seed, without controls, whose path adds nothing.
        draws: claim (a) by seed, at the reference's θ_A; empty unless requested.
        layout: layout of the trained parameters.
        counted: `100 facts`, or `64 of 100 facts` if fewer were taken.
        reduction: reduction of D_A's mean loss, `example` or `token`.
        without_path: labels of arms without kept weights within stage 2.
    """

    arms: Arms
    rows: tuple[ArmRow, ...]
    comparisons: Mapping[Pair, Mapping[int, Comparison]]
    floors: Mapping[str, Mapping[tuple[int, int], Comparison]]
    tested: Mapping[str, Mapping[int, tuple[Tested, ...]]]
    draws: Mapping[int, CrossTerms]
    layout: Layout
    counted: str
    reduction: str
    without_path: tuple[str, ...]

    def floor_of(self, pair: Pair) -> list[Comparison]:
        """Return comparisons of trainings of either arm on the same examples in another order."""
        return [
            one for label in (pair.reference, pair.other) for one in self.floors[label].values()
        ]

    def row(self, label: str, seed: int) -> ArmRow:
        """Return the row of an arm and seed."""
        return next(row for row in self.rows if (row.label, row.seed) == (label, seed))


def whole(comparison: Comparison) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the `(4, 4)` inner products of whole gradients."""
    return np.asarray(comparison.four.sum(axis=0))
