"""Loss change along a path, from gradients along it.

Source: the fundamental theorem for line integrals, L(θ_K) − L(θ_0) = ∫ g·dθ, which splits by
parameter and, dθ being a sum, by its parts. The total is verified when it equals the measured
change; the split depends on the straight segments, and only another number of segments tells how
much. Shapes: K straight segments, M parameter tensors, S sets, J parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PathChange:
    """Contribution of each parameter and part to the change of each set's loss, in nats.

    Attributes:
        simpson: `(M, S, J)` float64; exact where the loss on a segment is a polynomial of degree 4.
        trapezoid: `(M, S, J)` float64 from the ends alone; exact where it is quadratic.
    """

    simpson: NDArray[np.float64]
    trapezoid: NDArray[np.float64]


def path_change(products: NDArray[np.float64]) -> PathChange:
    """Integrate the change along all segments, by two rules.

    Args:
        products: `(K, M, S, 3, J)` float64, the gradient at a segment's start, middle and end,
            times the parts of its step.

    Raises:
        ValueError: another shape.
    """
    if products.ndim != 5 or products.shape[3] != 3:  # noqa: PLR2004
        raise ValueError(f"products {products.shape}: (pieces, parameters, sets, 3, parts) belongs")
    start, middle, end = np.moveaxis(products, 3, 0)
    simpson = (start + 4 * middle + end) / 6
    return PathChange(simpson.sum(axis=0), (start + end).sum(axis=0) / 2)


def coarser_trapezoid(
    products: NDArray[np.float64], pairs: Sequence[NDArray[np.float64] | None]
) -> NDArray[np.float64]:
    """Apply the trapezoid rule along half as many segments, each from a point to the next but one.

    With g the gradient at the points and a, b the steps of a pair, the line over both gives (g₀ +
    g₂)·(a + b) / 2 and the two segments (g₀ + g₁)·a / 2 + (g₁ + g₂)·b / 2. Their difference is half
    of (g₂ − g₁)·a − (g₁ − g₀)·b: each segment's gradients times the other's step, which no sum over
    `products` has. It is of the order h² in the split; in the total of a quadratic it is zero.

    Args:
        products: `(K, M, S, 3, J)`, as for `path_change`.
        pairs: K of `(M, S, 2, J)`: segments k − 1 and k merged, their gradients at both ends, times
            the parts of both steps together; None where that is not known.

    Returns:
        `(M, S, J)`; segments are paired from the first on, and one without a partner stands alone.
    """
    found = np.zeros(products.shape[1:3] + products.shape[4:])
    k = 0
    while k < len(products):
        pair = pairs[k + 1] if k + 1 < len(products) else None
        if pair is None:
            found += (products[k, :, :, 0] + products[k, :, :, 2]) / 2
        else:
            found += pair.sum(axis=2) / 2
        k += 1 if pair is None else 2
    return found


def moved(fine: NDArray[np.float64], coarse: NDArray[np.float64]) -> float:
    """Return the share of a split that differs, Σ|fine − coarse| / Σ|fine|; nan for no change."""
    size = float(np.abs(fine).sum())
    return float(np.abs(fine - coarse).sum()) / size if size else float("nan")
