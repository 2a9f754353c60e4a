"""The change of a loss along a path, from gradients along it.

Source: the fundamental theorem for line integrals, L(θ_K) − L(θ_0) = ∫ g·dθ, which splits by
parameter and, dθ being a sum, by its parts. Shapes: K straight pieces, M parameter tensors, S sets,
J parts.
"""

from __future__ import annotations

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
