"""Prediction of one number by another on runs that the fit has not seen (pure maths).

Every form goes through the origin: what did not move forgot nothing. The error is that of points
whose group was left out of the fit, against that of the mean ȳ_i of the same training points:

    R² = 1 − Σ_i (y_i − ŷ_i)² / Σ_i (y_i − ȳ_i)²

0 is as good as that mean, below 0 worse; it has no lower end.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import permutations as orders_of
from math import factorial

import numpy as np
from numpy.typing import NDArray

from geomix.measures.intervals import over_seeds

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FORMS = {"linear": (1.0,), "quadratic": (1.0, 2.0), "root": (0.5,)}
"""Powers of x that are fitted: a·x, a·x + b·x², a·√x."""

DRAWS = 199
"""Permutations of the null: the smallest p is 1 / 200."""


def predictions(form: str, x: Floats, y: Floats, apart: Bools) -> Floats:
    """Predict each point by least squares over the points that are apart from it.

    Args:
        form: of `FORMS`.
        x: predictor, 0 or more, `(n,)`, or `(draws, n)`.
        y: outcome, `(n,)`.
        apart: which points j may serve to predict point i, `(n, n)`.

    Returns:
        Of the shape of x.
    """
    scale = float(np.max(x)) or 1.0
    powers = FORMS[form]
    design = np.stack([(x / scale) ** power for power in powers], axis=-1)
    weights = apart.astype(np.float64)
    outer = design[..., :, None] * design[..., None, :]
    gram = np.einsum("ij,...jkl->...ikl", weights, outer)
    moment = np.einsum("ij,...jk,j->...ik", weights, design, y)
    fitted = np.einsum("...kl,...l->...k", np.linalg.pinv(gram, hermitian=True), moment)
    found: Floats = np.einsum("...ik,...ik->...i", design, fitted)
    return found


def coefficients(form: str, x: Floats, y: Floats) -> Floats:
    """Fit a form to all points; returns one coefficient a power, in y's unit per unit of x."""
    powers = FORMS[form]
    scale = float(np.max(x)) or 1.0
    design = np.stack([(x / scale) ** power for power in powers], axis=-1)
    found: Floats = np.linalg.lstsq(design, y, rcond=None)[0] / scale ** np.array(powers)
    return found


def curve(form: str, fitted: Floats, x: Floats) -> Floats:
    """Return the values of a fitted form, `(n,)`."""
    powers = FORMS[form]
    found: Floats = np.sum([a * x**power for a, power in zip(fitted, powers, strict=True)], axis=0)
    return found


def apart_from(*labels: Sequence[Hashable]) -> Bools:
    """Return which points differ in every one of these labels, `(n, n)`: arms, seeds, runs."""
    each = [[[one != other for other in label] for one in label] for label in labels]
    found: Bools = np.all(np.array(each, dtype=np.bool_), axis=0)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Validated:
    """A predictor of one outcome, out of sample.

    Attributes:
        form: of `FORMS`.
        x: predictor, `(n,)`.
        y: outcome, `(n,)`.
        errors: squared errors of points that were left out, `(n,)`.
        baseline: squared errors of the mean of the same training points, `(n,)`.
        null: R² of permuted predictors, `(draws,)`.
    """

    form: str
    x: Floats
    y: Floats
    errors: Floats
    baseline: Floats
    null: Floats

    @property
    def skill(self) -> float:
        """R² out of sample."""
        return float(1 - self.errors.sum() / self.baseline.sum())

    @property
    def within(self) -> float:
        """R² of the fit to all points, about their mean: in sample, for comparison."""
        fitted = curve(self.form, coefficients(self.form, self.x, self.y), self.x)
        return float(1 - ((self.y - fitted) ** 2).sum() / ((self.y - self.y.mean()) ** 2).sum())

    @property
    def p(self) -> float:
        """Share of permuted predictors, with the real one, that predict as well."""
        return float((1 + (self.null >= self.skill).sum()) / (1 + len(self.null)))

    def interval(self, units: Sequence[Hashable]) -> tuple[float, float, float]:
        """Return R² with Student's 95 % interval over units, such as seeds; see `difference`."""
        return _over(self.baseline - self.errors, self.baseline, units)


def difference(
    one: Validated, other: Validated, units: Sequence[Hashable]
) -> tuple[float, float, float]:
    """Return R² of one predictor less that of another on the same points, with its interval.

    A ratio of sums over units; its error is that of the linearised ratio, with Student's factor.
    Fits of two units share points, so that the interval is somewhat too narrow.

    Args:
        one: predictor.
        other: another one of the same outcome.
        units: of each point, such as its seed.

    Returns:
        Estimate and both ends; the ends are nan with one unit.
    """
    return _over(other.errors - one.errors, one.baseline, units)


def _over(gains: Floats, baseline: Floats, units: Sequence[Hashable]) -> tuple[float, float, float]:
    names = list(dict.fromkeys(units))
    of = np.array([names.index(unit) for unit in units])
    gained, there = (np.bincount(of, one, minlength=len(names)) for one in (gains, baseline))
    ratio = float(gained.sum() / there.sum())
    _, half = over_seeds((gained - ratio * there) / there.mean())
    return ratio, ratio - half, ratio + half


def validate(
    form: str,
    x: Floats,
    y: Floats,
    apart: Bools,
    arms: Sequence[Hashable],
    units: Sequence[Hashable],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Validated:
    """Cross-validate a predictor, with its null.

    Args:
        form: of `FORMS`.
        x: predictor, 0 or more, `(n,)`.
        y: outcome, `(n,)`.
        apart: as in `predictions`; every point needs some.
        arms: of each point.
        units: of each point: what it shares with one point of every other arm, its seed and stage.
        draws: permutations of the null.
        seed: of these.

    Raises:
        ValueError: a point has none that are apart from it, or x is negative.
    """
    if not apart.any(axis=1).all():
        raise ValueError("a point has no others to be predicted from")
    if (x < 0).any():
        raise ValueError("a predictor is 0 or more")
    errors = (y - predictions(form, x, y, apart)) ** 2
    means = (apart @ y) / apart.sum(axis=1)
    baseline = (y - means) ** 2
    drawn = x[permutations(arms, units, draws, np.random.default_rng(seed))]
    again = ((y - predictions(form, drawn, y, apart)) ** 2).sum(axis=1)
    return Validated(form, x, y, errors, baseline, 1 - again / baseline.sum())


def permutations(
    arms: Sequence[Hashable], units: Sequence[Hashable], draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return permutations of the points under which a predictor of nothing is exchangeable.

    Where every arm has one point in each unit, whole arms are exchanged: the points of an arm are
    alike, and count once. Else all points are permuted, which makes p too small.

    Returns:
        Indices, `(draws, n)`; of few arms all the other orders, which are fewer: 23 of 4 arms.
    """
    if not whole_arms(arms, units):
        return np.stack([rng.permutation(len(arms)) for _ in range(draws)])
    names = list(dict.fromkeys(arms))
    if factorial(len(names)) <= draws + 1:
        orders = list(orders_of(range(len(names))))[1:]
    else:
        orders = [tuple(rng.permutation(len(names)).tolist()) for _ in range(draws)]
    at = {cell: i for i, cell in enumerate(zip(arms, units, strict=True))}
    which = [names.index(arm) for arm in arms]
    rows = [
        [at[names[order[k]], unit] for k, unit in zip(which, units, strict=True)]
        for order in orders
    ]
    return np.array(rows, dtype=np.int64)


def whole_arms(arms: Sequence[Hashable], units: Sequence[Hashable]) -> bool:
    """Return whether every arm has exactly one point in each unit."""
    cells = list(zip(arms, units, strict=True))
    return len(set(cells)) == len(cells) == len(set(arms)) * len(set(units))
