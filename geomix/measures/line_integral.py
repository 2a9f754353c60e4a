"""The change of a loss along a path, from gradients along it.

Source: the fundamental theorem for line integrals, L(θ_K) − L(θ_0) = ∫ g·dθ, which splits by
parameter and, dθ being a sum, by its parts. The total is certain as soon as it is the measured
change; the split is that of the straight pieces, and only another number of pieces tells how much
of it is theirs. Shapes: K straight pieces, M parameter tensors, S sets, J parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PathChange:
    """What each parameter and part adds to the change of each set's loss, in nats.

    Attributes:
        simpson: `(M, S, J)` float64; exact on a piece where the loss is a polynomial of degree 4.
        trapezoid: `(M, S, J)` float64 from the ends alone; exact where it is quadratic.
    """

    simpson: NDArray[np.float64]
    trapezoid: NDArray[np.float64]


def path_change(products: NDArray[np.float64]) -> PathChange:
    """The change along all pieces, by two rules.

    Args:
        products: `(K, M, S, 3, J)` float64, the gradient at a piece's start, middle and end, times
            the parts of its step.

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
    """The trapezoid rule along half as many pieces, each from a point to the next but one.

    Where g is the gradient at the points and a, b the steps of a pair, the line over both takes
    (g₀ + g₂)·(a + b) / 2 and the two pieces (g₀ + g₁)·a / 2 + (g₁ + g₂)·b / 2. Their difference is
    half of (g₂ − g₁)·a − (g₁ − g₀)·b: each piece's gradients times the other's step, which no sum
    over `products` has. It is of the order h² in the split; in the total of a quadratic it is zero.

    Args:
        products: `(K, M, S, 3, J)` as `path_change` has them.
        pairs: K of `(M, S, 2, J)`: piece k − 1 and k as one, its gradients at both ends, times the
            parts of both steps together; None where that is not known.

    Returns:
        `(M, S, J)`; pieces go in pairs from the first on, and one without a partner goes alone.
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
    """How much of a split sits elsewhere in another: Σ|fine − coarse| / Σ|fine|; nan of nothing."""
    size = float(np.abs(fine).sum())
    return float(np.abs(fine - coarse).sum()) / size if size else float("nan")
