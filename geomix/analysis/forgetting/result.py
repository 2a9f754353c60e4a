"""Results of `geomix analyze forgetting`, run by run and arm by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomix.analysis.forgetting.expansion import Expansion
from geomix.analysis.forgetting.segments import Path, Segments
from geomix.analysis.forgetting.sharpness import Sharpness
from geomix.analysis.parameter_groups import By
from geomix.config.stage_names import stage_title
from geomix.measures.expansions import Level
from geomix.measures.path_factors import Comparison, compare, merged, paired_points
from geomix.measures.shapley import shapley_of_product


@dataclass(frozen=True, slots=True)
class Member:
    """One arm of one run.

    Attributes:
        run: its folder.
        seed: its seed.
        counted: `100 facts`, or `64 of 100 facts`.
        reduction: of the loss.
        real: along the stage's displacement.
        end: g(θ_end)·Δθ, nats: first order at the end of the stage.
        null: along the permuted displacement, one a draw.
        levels: F₁ and F₂ at 1, 2, 4, … expansions; empty if not requested.
        path: through the kept checkpoints; None if too few are kept.
        names: of the path's checkpoints.
        sharpness: along recorded segments.
    """

    run: str
    seed: int
    counted: str
    reduction: str
    real: Expansion
    end: float
    null: tuple[Expansion, ...]
    levels: tuple[Level, ...]
    path: Path | None
    names: tuple[str, ...]
    sharpness: tuple[Sharpness, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm's runs, which differ in their seeds.

    Attributes:
        label: its name.
        members: one a seed.
    """

    label: str
    members: tuple[Member, ...]

    def of(self, seed: int) -> Member | None:
        """Return the run of a seed."""
        return next((member for member in self.members if member.seed == seed), None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its runs."""
        return tuple(member.seed for member in self.members)


@dataclass(frozen=True, slots=True)
class PathPair:
    """Comparison of two arms' paths, for one seed.

    Attributes:
        seed: of both.
        fine: of K segments.
        coarse: of K/2.
        groups: `(g, 3)` Shapley parts by parameter group, nats, of K segments.
        pairing: how the segments of the two were paired.
        fails: why it is dropped; "" if both arms pass the quadrature gate.
    """

    seed: int
    fine: Comparison
    coarse: Comparison
    groups: NDArray[np.float64]
    pairing: str
    fails: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """Contrast of an arm with another: how much less it forgets.

    Attributes:
        reference: the arm that should forget more.
        arm: the other.
        judged: whether it may get a verdict: mixed against plain beside a control may not.
    """

    reference: Arm
    arm: Arm
    judged: bool

    @property
    def title(self) -> str:
        """Title such as `plain → control`."""
        return f"{self.reference.label} → {self.arm.label}"

    @property
    def pairs(self) -> list[tuple[Member, Member]]:
        """Runs of the seeds that both have."""
        found = [(self.reference.of(m.seed), m) for m in self.arm.members]
        return [(one, other) for one, other in found if one is not None]

    @property
    def differences(self) -> list[float]:
        """Forgetting of the reference minus that of the arm, one per paired seed, nats."""
        return [one.real.change - other.real.change for one, other in self.pairs]

    def paths(self, index: NDArray[np.int64]) -> list[PathPair]:
        """Compare the paths of each paired seed for which both have one.

        Args:
            index: `(M,)` the group of each parameter tensor.
        """
        return [
            _paths((one.seed, index), (self.reference.label, one.path), (self.arm.label, two.path))
            for one, two in self.pairs
            if one.path is not None and two.path is not None
        ]


def _paths(
    where: tuple[int, NDArray[np.int64]], reference: tuple[str, Path], arm: tuple[str, Path]
) -> PathPair:
    seed, index = where
    (name, one), (other, two) = reference, arm
    fails = [
        f"{label}: {why}" for label, p in ((name, one), (other, two)) if (why := p.fails(index))
    ]
    fine, pairing = _compared(one.fine, two.fine)
    coarse, _ = _compared(one.coarse, two.coarse)
    return PathPair(
        seed, fine, coarse, _groups(one.fine, two.fine, index), pairing, "; ".join(fails)
    )


def _compared(reference: Segments, arm: Segments) -> tuple[Comparison, str]:
    """Compare two paths whose segments are put together where their steps are unlike."""
    bounds, how = _bounds(reference, arm)
    one, two = (merged(s.factors, b) for s, b in zip((reference, arm), bounds, strict=True))
    errors = [
        np.abs(f.integral - np.add.reduceat(s.measured, b[:-1]))
        for f, s, b in zip((one, two), (reference, arm), bounds, strict=True)
    ]
    return compare(one, two, errors[0], errors[1]), how


def _groups(reference: Segments, arm: Segments, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Shapley parts by parameter group, `(g, 3)`."""
    bounds, _ = _bounds(reference, arm)
    one, two = (merged(s.grouped(index), b) for s, b in zip((reference, arm), bounds, strict=True))
    parts: NDArray[np.float64] = shapley_of_product(two.stacked, one.stacked).sum(axis=0)
    return parts


def _bounds(reference: Segments, arm: Segments) -> tuple[list[list[int]], str]:
    """Return the points of both paths that belong together, and how they were found."""
    bounds, apart = paired_points([reference.shares, arm.shares], len(reference.steps))
    if apart:
        return bounds, f"by nearest share of the stage, up to {100 * float(apart):.2g} % off"
    same = reference.steps == arm.steps
    return bounds, "by equal step" if same else "by equal share of the stage"


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Whole result.

    Attributes:
        name: the set.
        stage: index, from 0.
        stage_name: its name.
        start, end: labels of the checkpoints between which the loss changed.
        by: the grouping of the parameters.
        groups: their names.
        index: `(M,)` the group of each parameter tensor.
        arms: in the runs' order.
        contrasts: of arms.
        without_path: labels of arms that kept too few checkpoints, with their number of segments.
    """

    name: str
    stage: int
    stage_name: str
    start: str
    end: str
    by: By
    groups: tuple[str, ...]
    index: NDArray[np.int64]
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    without_path: tuple[str, ...]

    @property
    def title(self) -> str:
        """Title such as `stage 2 (triples)`."""
        return stage_title(self.stage, self.stage_name)

    @property
    def seeds(self) -> list[int]:
        """All seeds, in order."""
        return sorted({seed for arm in self.arms for seed in arm.seeds})


def contrasts_of(arms: Sequence[Arm], controls: Mapping[str, str]) -> tuple[Contrast, ...]:
    """Return the contrasts: each arm with the first one, and through its control if it has one.

    Args:
        arms: the first one is the reference.
        controls: for each arm that mixes, the arm with its batches without the passages.
    """
    first, known = arms[0], {arm.label: arm for arm in arms}
    used = dict.fromkeys(controls[arm.label] for arm in arms if arm.label in controls)
    found = [Contrast(first, known[label], judged=True) for label in used if label != first.label]
    for arm in arms[1:]:
        control = known.get(controls.get(arm.label, ""))
        if control is not None and control is not first:
            found.append(Contrast(control, arm, judged=True))
        if arm.label not in used:
            found.append(Contrast(first, arm, judged=control is None or control is first))
    return tuple(found)
