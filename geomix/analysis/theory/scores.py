"""Rows of the scorecard, and the aggregation of numbers over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule, Verdict

NATS = "nats"
SHARE = "1"


@dataclass(frozen=True, slots=True)
class Score:
    """A claim of the theory, with its measurement.

    Attributes:
        claim: the claim; a positive effect supports it unless `prediction` says otherwise.
        prediction: the effect that the theory expects: `> 0`, `≈ 0`.
        measured: the effect, mean over seeds; nan if it was not measured.
        low: lower end of its 95 % interval.
        high: upper end.
        unit: unit of the effect.
        null: reference of the effect.
        n: number of paired seeds, or of runs.
        verdict: the verdict by the one rule.
        why: reason for the verdict, or for its absence.
        source: the analysis and table that it was computed from.
    """

    claim: str
    prediction: str
    measured: float
    low: float
    high: float
    unit: str
    null: str
    n: int
    verdict: Verdict
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules declared before the runs, for each unit with verdicts.

    Attributes:
        nats: for changes of a loss.
        share: for shares, cosines and rank correlations.
    """

    nats: Rule
    share: Rule

    def of(self, unit: str) -> Rule:
        """Return the rule of a unit; that of another unit has no smallest effect."""
        known: Mapping[str, Rule] = {NATS: self.nats, SHARE: self.share}
        return known.get(unit, Rule(None, self.nats.planned))


def scored(
    claim: str,
    values: Sequence[float] | NDArray[np.float64],
    rules: Rules,
    source: str,
    *,
    unit: str = NATS,
    prediction: str = "> 0",
    null: str = "",
    gate: str = "",
) -> Score | None:
    """Judge an effect from its values by seed.

    Args:
        claim: the claim.
        values: one per paired seed; those that are no number are left out.
        rules: the declared rules.
        source: origin of the values.
        unit: unit of the values.
        prediction: the effect that the theory expects.
        null: reference of the effect.
        gate: reason why no verdict may be given, whatever the interval; "" if there is none.

    Returns:
        None if no seed has the effect.
    """
    known = [float(value) for value in values if np.isfinite(value)]
    if not known:
        return None
    mean, half = over_seeds(known)
    ends = (mean - half, mean + half)
    rule, n = rules.of(unit), len(known)
    why = gate or rule.lacking(n)
    verdict: Verdict = "undetermined" if why else rule.judge(*ends, n)
    return Score(claim, prediction, mean, *ends, unit, null, n, verdict, why, source)


def unmeasured(claim: str, prediction: str, why: str, source: str) -> Score:
    """Return the row of a claim that was not measured."""
    nothing = (float("nan"),) * 3
    return Score(claim, prediction, *nothing, "", "", 0, "undetermined", why, source)
