"""Effects of later training: the retention matrix, transfer, and forgetting events.

Shapes: R `(k + 1, T)` exact match in percent, of T stages' own sets in order; row 0 is θ_0, row i
is the model after stage i, for the k stages that have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from statistics import fmean

from geomix.config.names import set_name
from geomix.runs.directory import RunDirectory
from geomix.runs.evaluations import evaluations

Matrix = Sequence[Sequence[float]]


def backward_transfer(R: Matrix) -> float | None:  # noqa: N803 (the source's name)
    """Return the backward transfer: the effect of later stages on each stage's own set.

    BWT = 1/(k − 1) · Σ_{j=1}^{k−1} (R[k, j] − R[j, j]), in points of exact match; negative where
    the later stages caused forgetting; None before two stages have ended. Source: Lopez-Paz &
    Ranzato 2017 (GEM), equation 3.
    """
    k = len(R) - 1
    return fmean(R[k][j - 1] - R[j][j - 1] for j in range(1, k)) if k > 1 else None


def forward_transfer(R: Matrix) -> float | None:  # noqa: N803
    """Return the forward transfer: the effect of earlier stages on each set before its own stage.

    FWT = 1/(T − 1) · Σ_{j=2}^{T} (R[j − 1, j] − R[0, j]), in points of exact match, over the stages
    whose predecessor has ended; None if there is none. Source: Lopez-Paz & Ranzato 2017 (GEM),
    equation 4, with θ_0 in place of their model of random weights.
    """
    k, stages = len(R) - 1, len(R[0])
    known = range(2, min(stages, k + 1) + 1)
    return fmean(R[j - 1][j - 1] - R[0][j - 1] for j in known) if known else None


def average_forgetting(R: Matrix) -> float | None:  # noqa: N803
    """Return the average drop of each earlier stage's own set below its best value.

    F = 1/(k − 1) · Σ_{j=1}^{k−1} (max_{1 ≤ l < k} R[l, j] − R[k, j]), in points of exact match;
    None before two stages have ended. Source: Chaudhry et al. 2018 (Riemannian walk), section 3.
    """
    k = len(R) - 1
    return fmean(max(row[j] for row in R[1:k]) - R[k][j] for j in range(k - 1)) if k > 1 else None


def forgetting_events(right: Sequence[Sequence[bool]]) -> list[int]:
    """Count how often each fact was right at one evaluation and wrong at the next: `(facts,)`.

    Args:
        right: `(evaluations, facts)`, in temporal order.

    Source: Toneva et al. 2019, section 3, at evaluations rather than at each presentation.
    """
    return [sum(a and not b for a, b in pairwise(fact)) for fact in zip(*right, strict=True)]


def first_learnt(right: Sequence[Sequence[bool]], steps: Sequence[int]) -> list[int | None]:
    """Return the step at which each fact was first right, None if it never was: `(facts,)`.

    Args:
        right: `(evaluations, facts)`, in temporal order.
        steps: of each evaluation, `(evaluations,)`.
    """
    return [
        next((step for step, ok in zip(steps, fact, strict=True) if ok), None)
        for fact in zip(*right, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Transfer:
    """An arm's retention matrix and statistics of it, in percent and points of exact match.

    Attributes:
        arm: its name.
        sets: the stages' own sets: the matrix's columns.
        matrix: R, see the module.
        backward: transfer to earlier stages.
        forward: transfer to later stages.
        forgetting: average drop from the best value.
    """

    arm: str
    sets: list[str]
    matrix: list[list[float]]
    backward: float | None
    forward: float | None
    forgetting: float | None


@dataclass(frozen=True, slots=True)
class Forgetting:
    """History of one set's facts in an arm, for the facts that every evaluation scored.

    Attributes:
        arm: its name.
        set: `D_A`, `D_B`, …
        facts: number of these facts, the set's first ones.
        steps: of the evaluations that scored them, in optimiser steps since θ_0.
        events: for each fact, how often it was right at one of them and wrong at the next.
        learnt: for each fact, the step of the first one at which it was right; None if never.
    """

    arm: str
    set: str
    facts: int
    steps: list[int]
    events: list[int]
    learnt: list[int | None]


def transfer_of(arm: RunDirectory) -> Transfer | None:
    """Return an arm's retention matrix so far; None before the first evaluation.

    The row of a boundary that is still being written is left out.

    Raises:
        UserError: a file of the run cannot be read.
    """
    rows: dict[int, dict[str, float]] = {}
    for line in arm.metrics():
        if line["event"] == "evaluation" and line["moment"] in ("start", "end"):
            ended = line["stage"] + (line["moment"] == "end")
            rows.setdefault(ended, {})[line["set"]] = float(line["exact_match"])
    sets = [set_name(stage) for stage in range(len(arm.resolved()["config"]["stages"]))]
    matrix = [
        [row[name] for name in sets]
        for row in takewhile(set(sets).issubset, (rows.get(i, {}) for i in range(len(sets) + 1)))
    ]
    if not matrix:
        return None
    return Transfer(
        arm.name,
        sets,
        matrix,
        backward_transfer(matrix),
        forward_transfer(matrix),
        average_forgetting(matrix),
    )


def forgetting_of(arm: RunDirectory) -> list[Forgetting]:
    """Return the history of every set's facts, from the stored example scores.

    Raises:
        UserError: a file of the run cannot be read.
        ValueError: a file of example scores is not as geomix writes it; LookupError likewise.
    """
    steps: dict[str, list[int]] = {}
    right: dict[str, list[list[bool]]] = {}
    for one in evaluations(arm):
        for name, lines in one.lines().items():
            steps.setdefault(name, []).append(one.steps)
            right.setdefault(name, []).append([bool(line["exact"]) for line in lines])
    found: list[Forgetting] = []
    for name, made in right.items():
        facts = min(len(correct) for correct in made)
        common = [correct[:facts] for correct in made]
        events, learnt = forgetting_events(common), first_learnt(common, steps[name])
        found.append(Forgetting(arm.name, name, facts, steps[name], events, learnt))
    return found
