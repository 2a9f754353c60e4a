"""Number of local expansions that a change of the loss needs (pure maths).

A displacement x is divided into N equal parts and the loss expanded at the start of each: F₂(N) =
Σ_i [ g(θ_i)·x/N + ½ xᵀH(θ_i)x/N² ], and F₁(N) without the second term. F₁ errs as 1/N, F₂ as 1/N².
One Taylor polynomial (N = 1) need not be close; these sums converge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.1
"""Largest error of F₂, as a share of the measured change."""


@dataclass(frozen=True, slots=True)
class Level:
    """Change of the loss by N expansions, nats.

    Attributes:
        n: number of expansions.
        first: F₁(N).
        second: F₂(N).
        error_first: |F₁ − F| / |F|, F the measured change; nan if that is 0.
        error_second: the same for F₂.
    """

    n: int
    first: float
    second: float
    error_first: float
    error_second: float


def nested(
    slopes: Sequence[float] | NDArray[np.float64],
    curvatures: Sequence[float] | NDArray[np.float64],
    change: float,
) -> list[Level]:
    """Return every level from 1 to the finest, whose starts contain those of all coarser ones."""
    slope, curvature = (np.asarray(v, dtype=np.float64) for v in (slopes, curvatures))
    finest = len(slope)
    if slope.shape != curvature.shape or finest < 1 or finest & (finest - 1):
        raise ValueError(f"{finest} slopes, {len(curvature)} curvatures: a power of two of both")
    levels = []
    for n in (2**k for k in range(finest.bit_length())):
        at = slice(None, None, finest // n)
        first = float(slope[at].sum()) / n
        second = first + float(curvature[at].sum()) / (2 * n**2)
        errors = [abs(v - change) / abs(change) if change else np.nan for v in (first, second)]
        levels.append(Level(n, first, second, *errors))
    return levels


def needed(levels: Sequence[Level], tolerance: float = TOLERANCE) -> int | None:
    """Return N*: the smallest N at which F₂ is within the tolerance, and at 2N too.

    The error need not decrease steadily, hence the second condition; so the finest level is no
    candidate.

    Args:
        levels: from `nested`.
        tolerance: as a share of the measured change.

    Returns:
        None if no candidate holds: N* is above half of the finest level.
    """
    holds = [level.error_second <= tolerance for level in levels]
    for level, here, twice in zip(levels, holds, holds[1:], strict=False):
        if here and twice:
            return level.n
    return None


def needed_text(levels: Sequence[Level], tolerance: float = TOLERANCE) -> str:
    """Format N*: `4`, or `> 32`; `–` for a single level, which cannot decide."""
    found = needed(levels, tolerance)
    if found is not None:
        return str(found)
    return f"> {levels[-2].n}" if len(levels) > 1 else "–"
