"""One row of the scorecard, and how numbers of seeds become one."""

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
    """A claim of the theory beside what was measured.

    Attributes:
        claim: what is claimed, so that a positive effect supports it unless `prediction` says else.
        prediction: what the theory expects of the effect: `> 0`, `≈ 0`.
        measured: the effect, mean over seeds; nan where it was not measured.
        low: lower end of its 95 % interval.
        high: upper end.
        unit: of the effect.
        null: what it stands beside.
        n: paired seeds, or runs that were counted.
        verdict: by the one rule.
        why: what decides, or why nothing does.
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
    """What was declared before the runs, for each unit that a verdict is given in.

    Attributes:
        nats: for changes of a loss.
        share: for shares, cosines and rank correlations.
    """

    nats: Rule
    share: Rule

    def of(self, unit: str) -> Rule:
        """The rule of a unit; one of another unit has no smallest effect."""
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
    """The row of an effect that each seed has.

    Args:
        claim: what is claimed.
        values: one a paired seed; those that are no number are left out.
        rules: what was declared.
        source: where the values are from.
        unit: of the values.
        prediction: what the theory expects.
        null: what the effect stands beside.
        gate: why no verdict may be given whatever the interval; "" where nothing forbids it.

    Returns:
        None where no seed has the effect.
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
    """The row of a claim that nothing measured."""
    nothing = (float("nan"),) * 3
    return Score(claim, prediction, *nothing, "", "", 0, "undetermined", why, source)
