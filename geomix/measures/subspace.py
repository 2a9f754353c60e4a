"""How many directions a set's per-example gradients fill, and the angles to another set's.

From the Gram matrix alone: its block's eigenvalues are the squared singular values of the matrix of
gradients. Gradients are not centred. Shapes: N examples, n of one set, P parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomix.measures.cosine import Floats

Indices = NDArray[np.int64]

TOLERANCE = 1e-6
"""Directions with less than this share of the largest one's squared length are rounding: products
of gradients are taken in single precision."""

SHARE = 0.9
"""Of the squared length, that the directions of a set hold together."""


def spectrum(block: Floats, tolerance: float = TOLERANCE) -> Floats:
    """Squared singular values of a set's gradients, `(..., n)`, the largest first.

    Args:
        block: `(..., n, n)`, of the Gram matrix.
        tolerance: what is a smaller share of the largest value is rounding, and becomes 0.
    """
    return _cleaned(np.asarray(np.linalg.eigvalsh(block)[..., ::-1], np.float64), tolerance)


def _cleaned(values: Floats, tolerance: float) -> Floats:
    return np.where(values > tolerance * np.maximum(values[..., :1], 0.0), values, 0.0)


def effective_rank(block: Floats) -> Floats:
    """Exponential of the entropy of the singular values' shares, `(...)`, 1 to n; nan of zeros.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).

    Args:
        block: `(..., n, n)`, of the Gram matrix.
    """
    values = np.sqrt(spectrum(block))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = values / values.sum(axis=-1, keepdims=True)
        entropy = -np.where(share > 0, share * np.log(share), share * 0.0).sum(axis=-1)
    return np.asarray(np.exp(entropy))


def participation_ratio(block: Floats) -> Floats:
    """(Σλ)² / Σλ² of the squared singular values, `(...)`, from 1 to n; nan of zeros.

    Long gradients weigh more than in `effective_rank`.

    Args:
        block: `(..., n, n)`, of the Gram matrix.
    """
    values = spectrum(block)
    with np.errstate(invalid="ignore"):
        return np.asarray(values.sum(axis=-1) ** 2 / (values**2).sum(axis=-1))


def rank_of(values: Floats, share: float = SHARE) -> int:
    """How many directions hold a share of the squared length.

    Args:
        values: `(n,)`, see `spectrum`.
        share: in (0, 1].

    Returns:
        From 0 (of zeros) to n.
    """
    real = int((values > 0).sum())
    if not real:
        return 0
    held = np.cumsum(values) / values.sum()
    # A sum of shares may end just under 1 by rounding.
    return min(real, 1 + int(np.searchsorted(held, share * (1 - 1e-12))))


def principal_angles(
    gram: Floats,
    first: Indices,
    second: Indices,
    share: float = SHARE,
    tolerance: float = TOLERANCE,
) -> Floats:
    """Angles between the leading directions of two sets' gradients.

    The directions are V Λ^−½ of each block, so that the angles' cosines are the singular values of
    Λ_A^−½ V_Aᵀ G_AB V_B Λ_B^−½. An angle a comes out with an error of about the Gram matrix's own
    relative error over tan a; angles near 0 only to its root.

    Args:
        gram: `(N, N)`.
        first: `(n,)`, places of one set's examples.
        second: those of the other.
        share: of the squared length that each set's directions hold, see `rank_of`.
        tolerance: see `spectrum`.

    Returns:
        `(k,)` radians, from 0 to π/2, the smallest first; k is the smaller of the two ranks.
    """
    one, other = (_directions(gram[np.ix_(at, at)], share, tolerance) for at in (first, second))
    cosine = np.linalg.svd(one.T @ gram[np.ix_(first, second)] @ other, compute_uv=False)
    return np.asarray(np.arccos(np.clip(cosine, 0.0, 1.0)))


def _directions(block: Floats, share: float, tolerance: float) -> Floats:
    """`(n, k)`, the weights of the examples in each orthonormal direction."""
    values, vectors = np.linalg.eigh(block)
    values, vectors = _cleaned(values[::-1], tolerance), vectors[:, ::-1]
    k = rank_of(values, share)
    return np.asarray(vectors[:, :k] / np.sqrt(values[:k]))


def overlap(angles: Floats) -> float:
    """Mean squared cosine of principal angles, from 0 to 1; nan of none."""
    return float(np.mean(np.cos(angles) ** 2)) if len(angles) else float("nan")


def random_overlap(one: int, other: int, size: int) -> float:
    """What `overlap` is on average for uniformly random subspaces: max(k, l) / P, exactly.

    Gradients of one model share much more by its shape alone, so that this null is easily beaten
    and decides nothing; the held-out set does.

    Args:
        one: dimensions of the one, k.
        other: of the other, l.
        size: P.
    """
    return max(one, other) / size


def random_least_angle(one: int, other: int, size: int) -> float:
    """Where the smallest principal angle of uniformly random subspaces lies, in radians.

    The edge of the limiting law, cos² = (√(a(1 − b)) + √(b(1 − a)))² with a = k/P, b = l/P
    (Wachter 1980); single draws scatter about it by P^(−2/3). 0 where k + l is at least P.

    Args:
        one: dimensions of the one, k.
        other: of the other, l.
        size: P.
    """
    a, b = one / size, other / size
    if a + b >= 1:
        return 0.0
    return float(np.arccos(np.sqrt(a * (1 - b)) + np.sqrt(b * (1 - a))))
