"""Prediction of one number by another over runs: ranks, signs and uncertainty (pure maths)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

Floats = NDArray[np.float64]

DRAWS = 2000
"""Draws of a bootstrap."""


def spearman(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> float:
    """Return the rank correlation ρ (Spearman 1904), ties at their mean rank; nan for a constant.

    Args:
        x: `(n,)` finite.
        y: `(n,)` finite.

    Raises:
        ValueError: the lengths differ.
    """
    one, other = (np.asarray(v, dtype=np.float64) for v in (x, y))
    if one.shape != other.shape:
        raise ValueError(f"{len(one)} and {len(other)} numbers cannot be paired")
    if len(one) < 2:  # noqa: PLR2004
        return float("nan")
    return float(_correlations(one[None], other[None])[0])


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """A rank correlation over runs.

    Attributes:
        rho: over all runs.
        low: lower end of its interval; nan with fewer than three seeds.
        high: upper end.
        within: mean over arms of the rank correlation within each; nan if no arm has three runs.
        n: number of runs.
        seeds: number of their seeds.
    """

    rho: float
    low: float
    high: float
    within: float
    n: int
    seeds: int


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    seeds: Sequence[Hashable],
    arms: Sequence[Hashable],
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> RankCorrelation:
    """Compute Spearman's ρ over runs, with a percentile interval from a two-level bootstrap.

    The runs of a seed share their base and data, so seeds are drawn first, with replacement, and
    then as many runs of each. With fewer than 20 seeds such an interval is too narrow.

    Args:
        x: `(n,)` the predictor.
        y: `(n,)` the outcome.
        seeds: `(n,)` the seed of each run.
        arms: `(n,)` the arm of each run.
        level: level of the interval.
        draws: draws of the bootstrap.
        seed: seed of its random numbers.

    Raises:
        ValueError: the lengths differ.
    """
    if not len(x) == len(y) == len(seeds) == len(arms):
        raise ValueError("a predictor, an outcome, a seed and an arm belong to each run")
    known = np.isfinite(x) & np.isfinite(y)
    one, other = (np.asarray(v, dtype=np.float64)[known] for v in (x, y))
    of = [s for s, keep in zip(seeds, known, strict=True) if keep]
    kinds = [a for a, keep in zip(arms, known, strict=True) if keep]
    members = [np.flatnonzero([s == value for s in of]) for value in dict.fromkeys(of)]
    low = high = float("nan")
    if len(members) > 2:  # noqa: PLR2004
        found = _bootstrap(one, other, members, draws, np.random.default_rng(seed))
        if np.isfinite(found).any():
            low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return RankCorrelation(
        spearman(one, other), low, high, _within(one, other, kinds), len(one), len(members)
    )


def _bootstrap(
    x: Floats, y: Floats, members: list[NDArray[np.int64]], draws: int, random: np.random.Generator
) -> Floats:
    """Return `(draws,)` correlations of runs drawn by seed, then within each drawn seed."""
    sizes = np.array([len(m) for m in members])
    table = np.zeros((len(members), sizes.max()), dtype=np.int64)
    for row, own in zip(table, members, strict=True):
        row[: len(own)] = own
    chosen = random.integers(len(members), size=(draws, len(members)))
    drawn = random.integers(sizes[chosen][..., None], size=(*chosen.shape, sizes.max()))
    runs = table[chosen[..., None], drawn]
    counted = np.arange(sizes.max()) < sizes[chosen][..., None]
    found = np.empty(draws)
    totals = sizes[chosen].sum(axis=1)
    for total in np.unique(totals):  # one, where every seed has as many runs
        same = totals == total
        rows = runs[same][counted[same]].reshape(-1, total)
        found[same] = _correlations(x[rows], y[rows])
    return found


def _correlations(x: Floats, y: Floats) -> Floats:
    """Return the rank correlation of each row `(rows, n)`; nan where one is constant."""
    one, other = (rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (x, y))
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    inner = (one * other).sum(axis=1)
    found: Floats = np.divide(inner, size, out=np.full(len(x), np.nan), where=size > 0)
    return found


def _within(x: Floats, y: Floats, arms: Sequence[Hashable]) -> float:
    """Return the mean over arms of at least three runs, without those where it is undefined."""
    groups = [np.flatnonzero([a == arm for a in arms]) for arm in dict.fromkeys(arms)]
    found = [spearman(x[g], y[g]) for g in groups if len(g) > 2]  # noqa: PLR2004
    found = [value for value in found if np.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two signs over runs.

    Attributes:
        agree: number of runs in which they agree.
        n: number of runs counted.
        share: share of agreement; nan without runs.
        low: lower end of the exact interval of the share (Clopper and Pearson 1934).
        high: upper end.
        p: two-sided p of the exact binomial test against one half.
    """

    agree: int
    n: int
    share: float
    low: float
    high: float
    p: float


def sign_agreement(pairs: Sequence[tuple[float, float]], level: float = 0.95) -> Agreement:
    """Count agreeing signs; a pair with a 0 or without a number is left out.

    Args:
        pairs: a predicted and a measured number for each run.
        level: level of the interval.
    """
    signs = [np.sign(a) * np.sign(b) for a, b in pairs]
    counted = [s for s in signs if np.isfinite(s) and s]
    n, agree = len(counted), sum(s > 0 for s in counted)
    if not n:
        return Agreement(0, 0, *[float("nan")] * 4)
    test = binomtest(int(agree), n)
    interval = test.proportion_ci(level)
    ends = (float(interval.low), float(interval.high))
    return Agreement(int(agree), n, agree / n, *ends, float(test.pvalue))
