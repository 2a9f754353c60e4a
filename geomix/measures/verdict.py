"""The rule by which an interval becomes a verdict (pure maths)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "negligible", "refuted", "undetermined"]

ENOUGH = 10
"""Paired seeds that a verdict needs: with five, no sign test can ever be significant."""


def verdict(low: float, high: float, *, smallest: float, pairs: int, planned: int) -> Verdict:
    """Judge an effect by its interval, in the direction that a claim states.

    The rule, in this order, after equivalence testing with a smallest effect of interest (Lakens,
    *Equivalence tests*, 2017): too few pairs are `undetermined`; an interval within ±`smallest` is
    `negligible`, even where the interval excludes 0; one that ends below `smallest` is `refuted`;
    one above 0 is `supported`; any other is `undetermined`. Swapping the arms of a negligible
    effect leaves it negligible.

    Args:
        low: lower end of the interval, in the effect's unit, at the level that the plan states.
        high: upper end.
        smallest: smallest effect of interest, above 0, declared before the runs.
        pairs: paired seeds that were measured.
        planned: paired seeds that the plan asks for.

    Raises:
        ValueError: `smallest` is not above 0, or the interval's ends are not in order.
    """
    if not smallest > 0:
        raise ValueError(f"the smallest effect of interest must be above 0, not {smallest}")
    if not low <= high:
        raise ValueError(f"no interval: from {low} to {high}")
    if pairs < planned:
        return "undetermined"
    if -smallest < low and high < smallest:
        return "negligible"
    if high < smallest:
        return "refuted"
    return "supported" if low > 0 else "undetermined"


@dataclass(frozen=True, slots=True)
class Rule:
    """The verdict rule with the values declared before the runs.

    Attributes:
        smallest: smallest effect of interest, in the effect's unit; None if none was declared.
        planned: paired seeds that a verdict needs.
    """

    smallest: float | None = None
    planned: int = ENOUGH

    def judge(self, low: float, high: float, pairs: int) -> Verdict:
        """Judge an effect by its interval; `undetermined` without one, or without `smallest`."""
        if self.smallest is None or math.isnan(low) or math.isnan(high):
            return "undetermined"
        return verdict(low, high, smallest=self.smallest, pairs=pairs, planned=self.planned)

    def lacking(self, pairs: int) -> str:
        """Return why no effect can be judged; empty if one can."""
        if pairs < self.planned:
            there = "there is 1" if pairs == 1 else f"there are {pairs}"
            return f"a verdict needs {self.planned} paired seeds, and {there}"
        if self.smallest is None:
            return "a verdict needs a smallest effect of interest: declare it with --smallest"
        return ""
