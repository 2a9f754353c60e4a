"""Reach of a local model: how far along a direction it predicts a loss (pure maths).

The direction is x, the truth ΔL(t) = L(θ + t x) − L(θ) or s(t) = g(θ + t x) − g(θ), at the points t
of an ascending grid. The reach is the largest t up to which the model holds *without a gap*: a
model that is right again further out, by chance, does not reach that far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FINE = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07)

GRID = (*_FINE, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Fractions of the direction at which a model and the truth are compared, ascending."""

TOLERANCE = 0.1
"""Largest error allowed, as a share of the largest change so far."""

FLOOR = 1e-4
"""Smallest change of the loss, as a share of the loss itself, that counts."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Reach of a model, in fractions of the direction.

    Attributes:
        t: the largest grid point up to which it holds; 0 where it fails at the first one that
            counts; nan where it is undetermined.
        fails: the smallest grid point at which it fails; nan where it fails nowhere, and where it
            is undetermined.
        skipped: the grid points that do not count, because the truth hardly changed there.
    """

    t: float
    fails: float
    skipped: tuple[float, ...] = ()

    @property
    def determined(self) -> bool:
        """True if the whole direction changes the truth enough to judge a model."""
        return not math.isnan(self.t)

    @property
    def text(self) -> str:
        """Text such as `0.05`, `< 0.001` (fails at the first point), or `undetermined`."""
        if not self.determined:
            return "undetermined"
        return f"{self.t:g}" if self.t else f"< {self.fails:g}"


def taylor(first: float, second: float = 0.0, grid: Sequence[float] = GRID) -> NDArray[np.float64]:
    """Evaluate a local model along the direction: t·first + ½t²·second.

    Args:
        first: g·x, in nats.
        second: xᵀHx, or xᵀGx with Gauss–Newton's matrix, in nats.
        grid: points t.

    Returns:
        `(n,)` float64, nats.
    """
    t = np.asarray(grid, dtype=np.float64)
    return t * first + t**2 * (second / 2)


def reach(
    model: Sequence[float] | NDArray[np.float64],
    truth: Sequence[float] | NDArray[np.float64],
    grid: Sequence[float] = GRID,
    tolerance: float = TOLERANCE,
    floor: float = 0.0,
) -> Reach:
    """Return the largest t such that |m(τ) − ΔL(τ)| ≤ tol·max_{t'≤τ} |ΔL(t')| at all τ ≤ t.

    The largest change so far replaces the change itself, which may cross 0.

    Args:
        model: `(n,)` the model's change m(t), in nats.
        truth: `(n,)` the measured change ΔL(t), in nats.
        grid: `(n,)` points t, ascending.
        tolerance: the share of the largest change that the model may miss.
        floor: points with |ΔL(t)| below it, in nats, are skipped: `FLOOR` times the loss at t = 0.
            If the last point is skipped, the reach is undetermined.

    Raises:
        ValueError: the shapes differ, or the grid does not ascend.
    """
    t = _ascending(grid)
    predicted, change = (np.asarray(v, dtype=np.float64) for v in (model, truth))
    if predicted.shape != t.shape or change.shape != t.shape:
        raise ValueError(f"model {predicted.shape}, truth {change.shape}, grid {t.shape}: one each")
    small = (np.abs(change) < floor) | ((change == 0) & (predicted == 0))
    skipped = tuple(t[small].tolist())
    if small[-1]:
        return Reach(float("nan"), float("nan"), skipped)
    allowed = tolerance * np.fmax.accumulate(np.abs(change))
    with np.errstate(invalid="ignore"):  # inf − inf, which is no agreement
        holds = (np.abs(predicted - change) <= allowed) & np.isfinite(change)
    return _without_gap(t[~small], holds[~small], skipped)


def gradient_reach(
    errors: Sequence[float],
    norms: Sequence[float],
    grid: Sequence[float] = GRID,
    tolerance: float = TOLERANCE,
) -> Reach:
    """Return the largest t such that ‖s(τ) − τ H x‖ ≤ tol·‖s(τ)‖ at all τ ≤ t.

    Args:
        errors: ‖s(t) − t H x‖ at the points, from the first on; those after the first failure may
            be missing.
        norms: ‖s(t)‖ at the same points. Where the gradient does not change at all (both 0) the
            point is skipped; if it is the last point, the reach is undetermined.
        grid: points t, ascending.
        tolerance: the share of the change that the model may miss.

    Raises:
        ValueError: the lengths differ, or points are missing though nothing has failed.
    """
    t = _ascending(grid)
    error, norm = (np.asarray(v, dtype=np.float64) for v in (errors, norms))
    if error.shape != norm.shape or len(error) > len(t):
        raise ValueError(f"errors {error.shape}, norms {norm.shape}, grid {t.shape}: one each")
    holds = (error <= tolerance * norm) & np.isfinite(norm)
    if len(error) < len(t) and holds.all():
        raise ValueError(f"{len(error)} of {len(t)} points, and the model holds at all of them")
    known = t[: len(error)]
    still = (error == 0) & (norm == 0)
    skipped = tuple(known[still].tolist())
    if len(known) == len(t) and still[-1]:
        return Reach(float("nan"), float("nan"), skipped)
    return _without_gap(known[~still], holds[~still], skipped)


def _without_gap(
    t: NDArray[np.float64], holds: NDArray[np.bool_], skipped: tuple[float, ...]
) -> Reach:
    """Return the last point before the first failure."""
    if holds.all():
        return Reach(float(t[-1]), float("nan"), skipped)
    first = int(np.argmin(holds))
    return Reach(float(t[first - 1]) if first else 0.0, float(t[first]), skipped)


def _ascending(grid: Sequence[float]) -> NDArray[np.float64]:
    t = np.asarray(grid, dtype=np.float64)
    if t.ndim != 1 or not len(t) or not (np.diff(t, prepend=0.0) > 0).all():
        raise ValueError("the grid must hold points above 0, in ascending order")
    return t
