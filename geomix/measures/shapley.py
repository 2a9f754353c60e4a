"""Shapley values of a product of three factors (pure maths)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shapley_of_product(before: Floats, after: Floats) -> Floats:
    """Return the contribution of each of three factors to the change of their product.

    The mean over the 3! orders in which the factors can be exchanged one by one (Shapley 1953), in
    closed form: φ_a = (a' − a)(2bc + bc' + b'c + 2b'c')/6, and cyclic. Factors may have any sign.

    Args:
        before: `(..., 3)` the factors.
        after: `(..., 3)` the factors that replace them.

    Returns:
        `(..., 3)` float64; sums over the last axis to the product after minus the product before.

    Raises:
        ValueError: other shapes.
    """
    before, after = (np.asarray(v, dtype=np.float64) for v in (before, after))
    if before.shape != after.shape or before.shape[-1:] != (3,):
        raise ValueError(f"factors {before.shape} and {after.shape}: three of each belong")
    b, c = np.roll(before, -1, axis=-1), np.roll(before, -2, axis=-1)
    d, e = np.roll(after, -1, axis=-1), np.roll(after, -2, axis=-1)
    shares: Floats = (after - before) * (2 * b * c + b * e + d * c + 2 * d * e) / 6
    return shares
