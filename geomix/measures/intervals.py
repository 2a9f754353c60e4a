"""Intervals over seeds (pure maths)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the mean over seeds with the half width of its Student t interval.

    With 3 to 20 seeds a percentile bootstrap with 95 % nominal coverage covers 73 to 93 %; this one
    covers 95 % for roughly normal quantities. For a quantity as skewed as an exponential it covers
    88, 88, 90 and 92 % with 3, 5, 10 and 20 seeds; for paired differences, where the skewness
    cancels, 95 to 97 %.

    Args:
        values: one number a seed, `(n,)`, n at least 2.
        level: of the interval, between 0 and 1.

    Returns:
        Mean and half width, in the unit of the values.

    Raises:
        ValueError: fewer than two values: one seed has no interval.
    """
    n = len(values)
    if n <= 1:
        raise ValueError(f"an interval over seeds needs at least 2 of them, not {n}")
    error = float(np.std(values, ddof=1)) / n**0.5
    return float(np.mean(values)), float(student.ppf(0.5 + level / 2, n - 1)) * error


def over_seeds(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and half width of the 95 % t interval; nan width for one value or any nan."""
    if len(values) == 1:
        return float(values[0]), float("nan")
    if np.isnan(values).any():
        return float("nan"), float("nan")
    return t_interval([float(value) for value in values])
