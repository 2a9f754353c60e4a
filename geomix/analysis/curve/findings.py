"""Findings of `geomix analyze curve`: the law of each arm, and its stability gap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomix.analysis.curve.result import Arm, Curve, Fitted
from geomix.analysis.curve.tables import UNITS, gap_rows
from geomix.analysis.findings import Finding
from geomix.measures.intervals import over_seeds
from geomix.measures.law_choice import Candidate, Choice
from geomix.measures.verdict import Verdict

SURE = 0.95
"""Share of refits that must have a law's family for a verdict."""

CLEAR = 2.0
"""AICc by which the best law of any other family must be behind."""

AXIS_UNITS = {"steps": "steps", "tokens": "tokens", "length": "‖Δθ‖"}


def findings(result: Curve, planned: int) -> Iterator[Finding]:
    """Yield each arm's laws, then its stability gaps.

    Args:
        result: of the measurement.
        planned: seeds that a verdict on a law needs.
    """
    for arm in result.arms:
        for fitted in arm.fitted:
            if fitted.choice is not None and fitted.choice.best is not None:
                yield _law(result, arm, fitted, fitted.choice, fitted.choice.best, planned)
    for arm in result.arms:
        yield from _gaps(result, arm)


def rival(choice: Choice) -> Candidate | None:
    """Return the best valid law of another family than the best one's."""
    best = choice.best
    others = [
        one
        for one in choice.candidates
        if best is not None and one.law.family != best.law.family and np.isfinite(one.behind)
    ]
    return min(others, key=lambda one: one.behind, default=None)


def _law(
    result: Curve, arm: Arm, fitted: Fitted, choice: Choice, best: Candidate, planned: int
) -> Finding:
    other, seeds = rival(choice), len(arm.courses)
    sure = choice.family >= SURE and (other is None or other.behind >= CLEAR)
    word: Verdict = "supported" if sure and seeds >= planned else "undetermined"
    beside = f"; {other.law.name} is {other.behind:.2g} AICc behind" if other else ""
    sentence = f"{100 * choice.family:.0f} % of refits have this family{beside}."
    if seeds < planned:
        there = "there is 1" if seeds == 1 else f"there are {seeds}"
        sentence += f" No verdict: it needs {planned} seeds, and {there}."
    claim = f"{arm.label}: {result.name} fades by a law, {best.law.name}, against {fitted.axis}; τ"
    return Finding(claim, *best.tau, AXIS_UNITS[fitted.axis], seeds, word, sentence)


def _gaps(result: Curve, arm: Arm) -> Iterator[Finding]:
    rows = [row for row in gap_rows(result) if row["arm"] == arm.label]
    for score in dict.fromkeys(row["score"] for row in rows):
        mine = [row for row in rows if row["score"] == score]
        depth, half = over_seeds([row["depth"] for row in mine])
        back = float(np.mean([row["recovered"] for row in mine]))
        at = ", ".join(dict.fromkeys(str(row["at"]) for row in mine))
        sentence = (
            f"Lowest {at} steps after {result.start}, of evaluations at most {mine[0]['widest']} "
            f"steps apart; {back:.3g} came back. Both are 0 or more by construction."
        )
        ends = (depth - half, depth + half)
        claim = f"{arm.label}: dip of {result.name}, {score.replace('_', ' ')}"
        yield Finding(claim, depth, *ends, UNITS[score], len(mine), "undetermined", sentence)
