"""What later training took away or gave: the retention matrix, transfer, and events of forgetting.

Shapes: R `(k + 1, T)` exact match in percent, of T stages' own sets in order; row 0 is θ_0, row i
is the model after stage i, for the k stages that have ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from geomix.config.names import set_name
from geomix.runs.directory import RunDirectory, verdict_file

Matrix = Sequence[Sequence[float]]


def backward_transfer(R: Matrix) -> float | None:  # noqa: N803 (the source's name)
    """What the stages after it did to each stage's own set; negative where they made it forget.

    BWT = 1/(k − 1) · Σ_{j=1}^{k−1} (R[k, j] − R[j, j]), in points of exact match; None before two
    stages have ended. Source: Lopez-Paz & Ranzato 2017 (GEM), equation 3.
    """
    k = len(R) - 1
    return fmean(R[k][j - 1] - R[j][j - 1] for j in range(1, k)) if k > 1 else None


def forward_transfer(R: Matrix) -> float | None:  # noqa: N803
    """What the stages before it did to each stage's own set before it was trained on.

    FWT = 1/(T − 1) · Σ_{j=2}^{T} (R[j − 1, j] − R[0, j]), in points of exact match, over the stages
    before which one has ended; None where there is none. Source: Lopez-Paz & Ranzato 2017 (GEM),
    equation 4, with θ_0 in place of their model of random weights.
    """
    k, stages = len(R) - 1, len(R[0])
    known = range(2, min(stages, k + 1) + 1)
    return fmean(R[j - 1][j - 1] - R[0][j - 1] for j in known) if known else None


def average_forgetting(R: Matrix) -> float | None:  # noqa: N803
    """How far each earlier stage's own set lies under the best that was known of it.

    F = 1/(k − 1) · Σ_{j=1}^{k−1} (max_{1 ≤ l < k} R[l, j] − R[k, j]), in points of exact match;
    None before two stages have ended. Source: Chaudhry et al. 2018 (Riemannian walk), section 3.
    """
    k = len(R) - 1
    return fmean(max(row[j] for row in R[1:k]) - R[k][j] for j in range(k - 1)) if k > 1 else None


def forgetting_events(right: Sequence[Sequence[bool]]) -> list[int]:
    """How often each fact was right at one evaluation and wrong at the next: `(facts,)`.

    Args:
        right: `(evaluations, facts)`, in the order of time.

    Source: Toneva et al. 2019, section 3, at evaluations where they look at each presentation.
    """
    return [sum(a and not b for a, b in pairwise(fact)) for fact in zip(*right, strict=True)]


def first_learnt(right: Sequence[Sequence[bool]], steps: Sequence[int]) -> list[int | None]:
    """The step at which each fact was first right, None where it never was: `(facts,)`.

    Args:
        right: `(evaluations, facts)`, in the order of time.
        steps: at which each evaluation was made, `(evaluations,)`.
    """
    return [
        next((step for step, ok in zip(steps, fact, strict=True) if ok), None)
        for fact in zip(*right, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Transfer:
    """An arm's retention matrix and what is drawn from it, in percent and points of exact match.

    Attributes:
        arm: its name.
        sets: the stages' own sets: the matrix's columns.
        matrix: R, see the module.
        backward: transfer to earlier stages.
        forward: transfer to later stages.
        forgetting: average, from the best.
    """

    arm: str
    sets: list[str]
    matrix: list[list[float]]
    backward: float | None
    forward: float | None
    forgetting: float | None


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The history of one set's facts in an arm: of those that every evaluation of it scored.

    Attributes:
        arm: its name.
        set: `D_A`, `D_B`, …
        facts: how many they are, the set's first ones.
        steps: of the evaluations that scored them, in optimiser steps since θ_0.
        events: of each fact, how often it was right at one of them and wrong at the next.
        learnt: of each fact, the step of the first one at which it was right; None: at none.
    """

    arm: str
    set: str
    facts: int
    steps: list[int]
    events: list[int]
    learnt: list[int | None]


def transfer_of(arm: RunDirectory) -> Transfer | None:
    """An arm's retention matrix as far as its stages have ended; None before the first evaluation.

    Of a boundary that is just being written, its row is left out.

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
    """The history of every set's facts, from the verdicts that are there.

    Raises:
        UserError: a file of the run cannot be read.
        ValueError: a file of verdicts is not as geomix writes it, as LookupError says too.
    """
    steps: dict[str, list[int]] = {}
    right: dict[str, list[list[bool]]] = {}
    for file, step in _verdict_files(arm).items():
        for name, verdicts in _verdicts(file).items():
            steps.setdefault(name, []).append(step)
            right.setdefault(name, []).append(verdicts)
    found: list[Forgetting] = []
    for name, made in right.items():
        facts = min(len(verdicts) for verdicts in made)
        common = [verdicts[:facts] for verdicts in made]
        events, learnt = forgetting_events(common), first_learnt(common, steps[name])
        found.append(Forgetting(arm.name, name, facts, steps[name], events, learnt))
    return found


def _verdict_files(arm: RunDirectory) -> dict[Path, int]:
    """The files of verdicts that are there, in order of time, with the steps since θ_0."""
    before, stage, last = 0, 0, 0
    found: dict[Path, int] = {}
    for line in arm.metrics():
        if line["stage"] != stage:
            before, stage = before + last, line["stage"]
        last = line["step"]
        if line["event"] == "evaluation":
            for folder in arm.path.glob(f"stages/{stage:d}-*"):
                file = verdict_file(folder, line["moment"], line["epoch"], last)
                if file.exists():
                    found[file] = before + last  # twice where a rule ended the stage: one file
    return found


def _verdicts(file: Path) -> Mapping[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            verdict: dict[str, Any] = json.loads(line)
            found.setdefault(verdict["set"], []).append(bool(verdict["exact"]))
    return found
