"""Choice among laws of retention: AICc, weights, and intervals by refitting (pure maths).

Resampled curves are means over seeds drawn with replacement; of one seed, the best law's curve plus
its own residuals drawn with replacement, times √(n / (n − p)). The latter say what the noise about
one curve allows, and nothing about other seeds.

An interval is Student's: the estimate and the standard deviation over refits, of ln τ, ln α, ln k
and c; with S seeds it has S − 1 degrees of freedom and the factor √(S / (S − 1)), with one n − p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from geomix.measures.retention_laws import LAWS, Fits, Floats, Law, fit

DRAWS = 400
"""Resampled curves."""

ENOUGH_SEEDS = 5
"""Fewest seeds whose variances weigh the points: those of fewer are too noisy to be weights."""

_LOST = 0.025
"""Share of refits outside the data above which a parameter has no interval."""

Interval = tuple[float, float, float]
"""Estimate and both ends; the ends are nan where the data do not determine them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A law fitted to a curve, beside its rivals.

    Attributes:
        law: the law.
        tau: τ in the unit of time.
        alpha: α of a power; nan for the others.
        slope: k of a logarithm; nan for the others.
        floor: c; nan without a floor.
        error: root of the mean squared error, in shares of R.
        aicc: Akaike's corrected criterion.
        behind: AICc above that of the best valid law.
        weight: Akaike's weight among the valid laws.
        chosen: share of refits in which the law is the best one.
        state: `best`, `valid`, or why the law is rejected.
    """

    law: Law
    tau: Interval
    alpha: Interval
    slope: Interval
    floor: Interval
    error: float
    aicc: float
    behind: float
    weight: float
    chosen: float
    state: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Laws fitted to the retention of one arm.

    Attributes:
        candidates: in the order of `LAWS`.
        seeds: curves that entered.
        best: the one of the lowest AICc among the valid; None if all are rejected.
        family: share of refits whose best law is of the best one's family.
    """

    candidates: Sequence[Candidate]
    seeds: int
    best: Candidate | None
    family: float


def weights_of(curves: Floats) -> Floats | None:
    """Return weights of points from their variances over seeds; None for equal ones.

    Args:
        curves: `(seeds, n)`.

    Returns:
        `(n,)`, inverse variances, none above ten times the inverse of the mean one; None with fewer
        than 5 seeds.
    """
    if len(curves) < ENOUGH_SEEDS:
        return None
    variance = curves.var(axis=0, ddof=1)
    least = 0.1 * variance.mean()
    return None if not least else 1 / np.maximum(variance, least)


def choose(t: Floats, curves: Floats, *, seed: int = 0, draws: int = DRAWS) -> Choice:
    """Fit every law to the mean curve, and choose by AICc among those that the data allow.

    Args:
        t: times after the stage, above 0, ascending, `(n,)`.
        curves: R, one a seed, `(seeds, n)`.
        seed: of the resampling.
        draws: resampled curves.

    Raises:
        ValueError: `geomix.measures.retention_laws.lacking` has a reason.
    """
    weights = weights_of(curves)
    mean = curves.mean(axis=0, keepdims=True)
    fits = [fit(law, t, mean, weights) for law in LAWS]
    scores = np.array([_valid(one)[0] for one in fits])
    if not np.isfinite(scores).any():
        return Choice([_candidate(one, scores, np.nan, None) for one in fits], len(curves), None, 0)
    best = int(scores.argmin())
    resampled = _resampled(t, curves, fits[best], np.random.default_rng(seed), draws)
    refits = [fit(law, t, resampled, weights) for law in LAWS]
    table = np.array([_valid(one) for one in refits])
    winners = np.where(np.isfinite(table).any(axis=0), table.argmin(axis=0), -1)
    shares = [float(np.mean(winners == i)) for i in range(len(LAWS))]
    family = sum(
        share for share, law in zip(shares, LAWS, strict=True) if law.family == LAWS[best].family
    )
    spread = _Spread(refits[best], len(curves))
    candidates = [
        _candidate(one, scores, share, spread if i == best else None)
        for i, (one, share) in enumerate(zip(fits, shares, strict=True))
    ]
    return Choice(candidates, len(curves), candidates[best], family)


def _valid(fits: Fits) -> Floats:
    """Return AICc, infinite where the law is rejected, `(B,)`."""
    found: Floats = np.where(fits.inside, fits.aicc(), np.inf)
    return found


def _resampled(
    t: Floats, curves: Floats, best: Fits, rng: np.random.Generator, draws: int
) -> Floats:
    """Return resampled mean curves, `(draws, n)`."""
    seeds, n = curves.shape
    if seeds > 1:
        found: Floats = curves[rng.integers(0, seeds, (draws, seeds))].mean(axis=1)
        return found
    fitted = best.curves(t)[0]
    residuals = (curves[0] - fitted) * np.sqrt(n / (n - best.law.parameters))
    again: Floats = fitted + residuals[rng.integers(0, n, (draws, n))]
    return again


@dataclass(frozen=True, slots=True)
class _Spread:
    """Refits of one law, and the number of seeds behind them."""

    refits: Fits
    seeds: int

    def around(self, value: float, refitted: Floats, *, log: bool) -> Interval:
        """Return Student's interval of an estimate from its refitted values."""
        one = self.refits
        if np.mean(~one.inside) > _LOST:
            return value, np.nan, np.nan
        if self.seeds > 1:
            freedom, factor = self.seeds - 1, np.sqrt(self.seeds / (self.seeds - 1))
        else:
            freedom, factor = one.points - one.law.parameters, 1.0
        there = refitted[one.inside]
        half = student.ppf(0.975, freedom) * factor * np.std(np.log(there) if log else there)
        if not log:
            return value, float(value - half), float(value + half)
        return value, float(value * np.exp(-half)), float(value * np.exp(half))


def _candidate(fits: Fits, scores: Floats, share: float, spread: _Spread | None) -> Candidate:
    """Return one law beside its rivals; with a `spread` it is the best one."""
    law, score = fits.law, float(fits.aicc()[0])
    valid = bool(fits.inside[0])
    lowest = float(scores.min())
    total = float(np.exp(-(scores[np.isfinite(scores)] - lowest) / 2).sum())

    def around(has: bool, values: Floats, refitted: Floats | None, *, log: bool) -> Interval:
        if not has:
            return np.nan, np.nan, np.nan
        value = float(values[0])
        if spread is None or refitted is None:
            return value, np.nan, np.nan
        return spread.around(value, refitted, log=log)

    refits = None if spread is None else spread.refits
    taus, alphas, betas = (
        (None, None, None) if refits is None else (refits.tau, refits.alpha, refits.beta)
    )
    floors = None if betas is None else 1 - betas
    return Candidate(
        law=law,
        tau=around(True, fits.tau, taus, log=True),
        alpha=around(law.family == "power", fits.alpha, alphas, log=True),
        slope=around(law.family == "logarithm", fits.beta, betas, log=True),
        floor=around(law.floor, 1 - fits.beta, floors, log=False),
        error=float(np.sqrt(fits.errors[0] / fits.points)),
        aicc=score,
        behind=score - lowest if valid else np.nan,
        weight=float(np.exp(-(score - lowest) / 2)) / total if valid else 0.0,
        chosen=share,
        state="best" if spread else "valid" if valid else _why(fits),
    )


def _why(fits: Fits) -> str:
    """Return why a law is rejected."""
    beta = float(fits.beta[0])
    if beta <= 0:
        return "rejected: the curve does not fall"
    if fits.law.floor and beta > 1:
        return "rejected: floor below 0"
    return "rejected: τ outside the data"
