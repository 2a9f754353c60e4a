"""Angles between gradients, from the inner products that a record holds.

An inner product of whole gradients is the sum of those of their parameter tensors, so every
grouping (layer, module, whole model) is exact and needs no gradient to be kept.

Shapes: p parameter tensors, g groups of them, s probe sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDING = 1e-6
"""Largest excess of |cos| over 1 that rounding of float64 inner products can cause."""


def group_inner_products(inner: Floats, groups: NDArray[np.int64]) -> Floats:
    """Return the inner products of the gradients restricted to each group of parameter tensors.

    Args:
        inner: `(p, s, s)`, per parameter tensor.
        groups: `(p,)`, the group of each tensor, counted from 0.

    Returns:
        `(g, s, s)`, symmetric in the sets as `inner` is; a group without tensors is all zero.
    """
    grouped = np.zeros((int(groups.max()) + 1, *inner.shape[1:]))
    np.add.at(grouped, groups, inner)
    return grouped


def norms(inner: Floats) -> Floats:
    """Return the Euclidean norms of the gradients.

    Args:
        inner: `(..., s, s)`.

    Returns:
        `(..., s)`, at least 0; nan where `inner` is nan.

    Raises:
        ValueError: a squared norm is negative: these are not inner products.
    """
    squares: Floats = np.diagonal(inner, axis1=-2, axis2=-1)
    if np.any(squares < 0):
        raise ValueError("a squared norm is negative: not the inner products of any gradients")
    return np.sqrt(squares)


def cosines(inner: Floats) -> Floats:
    """Return the cosines of the angles between the gradients.

    Args:
        inner: `(..., s, s)`.

    Returns:
        `(..., s, s)` in [−1, 1], symmetric as `inner` is, invariant to the gradients' lengths; 1 on
        the diagonal. nan where either norm is zero (no angle is defined) or not finite. Only
        rounding is clipped.

    Raises:
        ValueError: a value lies beyond [−1, 1] by more than rounding: these are not inner products.
    """
    length = norms(inner)
    # Two square roots rather than the root of a product, which underflows for tiny gradients.
    product = length[..., :, None] * length[..., None, :]
    defined = (product > 0) & np.isfinite(product)
    cosine = np.divide(inner, product, out=np.full_like(product, np.nan), where=defined)
    if np.any(np.abs(cosine) > 1 + ROUNDING):
        raise ValueError("a cosine exceeds 1: not the inner products of any gradients")
    return np.clip(cosine, -1.0, 1.0)
