"""Effective dimension of a set's per-example gradients, and principal angles to another set's.

Both follow from the Gram matrix: the eigenvalues of a set's block are the squared singular values
of its gradient matrix. Gradients are not centred. Shapes: N examples, n of one set, P parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomix.measures.cosine import Floats

Indices = NDArray[np.int64]

TOLERANCE = 1e-6
"""Smallest squared length of a direction, as a share of the largest one's; less is rounding, since
products of gradients are computed in single precision."""

SHARE = 0.9
"""Share of the squared length that a set's leading directions hold together."""


def spectrum(block: Floats, tolerance: float = TOLERANCE) -> Floats:
    """Return the squared singular values of a set's gradients, `(..., n)`, the largest first.

    Args:
        block: `(..., n, n)`, of the Gram matrix.
        tolerance: a smaller share of the largest value is rounding, and becomes 0.
    """
    return _cleaned(np.asarray(np.linalg.eigvalsh(block)[..., ::-1], np.float64), tolerance)


def _cleaned(values: Floats, tolerance: float) -> Floats:
    return np.where(values > tolerance * np.maximum(values[..., :1], 0.0), values, 0.0)


def effective_rank(block: Floats) -> Floats:
    """Return the exponential of the entropy of the singular values' shares, `(...)`, 1 to n.

    nan for zero gradients. Source: Roy and Vetterli, "The effective rank: a measure of effective
    dimensionality" (2007).

    Args:
        block: `(..., n, n)`, of the Gram matrix.
    """
    values = np.sqrt(spectrum(block))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = values / values.sum(axis=-1, keepdims=True)
        entropy = -np.where(share > 0, share * np.log(share), share * 0.0).sum(axis=-1)
    return np.asarray(np.exp(entropy))


def participation_ratio(block: Floats) -> Floats:
    """Return (Σλ)² / Σλ² of the squared singular values, `(...)`, 1 to n; nan for zero gradients.

    Long gradients weigh more than in `effective_rank`.

    Args:
        block: `(..., n, n)`, of the Gram matrix.
    """
    values = spectrum(block)
    with np.errstate(invalid="ignore"):
        return np.asarray(values.sum(axis=-1) ** 2 / (values**2).sum(axis=-1))


def rank_of(values: Floats, share: float = SHARE) -> int:
    """Return the number of directions that hold a share of the squared length.

    Args:
        values: `(n,)`, see `spectrum`.
        share: in (0, 1].

    Returns:
        From 0 (for zeros) to n.
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
    """Return the principal angles between the leading directions of two sets' gradients.

    The directions are V Λ^−½ of each block, so that the cosines of the angles are the singular
    values of Λ_A^−½ V_Aᵀ G_AB V_B Λ_B^−½. An angle a has an error of about the Gram matrix's
    relative error over tan a; near 0, of about its square root.

    Args:
        gram: `(N, N)`.
        first: `(n,)`, indices of one set's examples.
        second: indices of the other's.
        share: of the squared length that each set's directions hold, see `rank_of`.
        tolerance: see `spectrum`.

    Returns:
        `(k,)` radians, from 0 to π/2, the smallest first; k is the smaller of the two ranks.
    """
    one, other = (_directions(gram[np.ix_(at, at)], share, tolerance) for at in (first, second))
    cosine = np.linalg.svd(one.T @ gram[np.ix_(first, second)] @ other, compute_uv=False)
    return np.asarray(np.arccos(np.clip(cosine, 0.0, 1.0)))


def _directions(block: Floats, share: float, tolerance: float) -> Floats:
    """Return the weights `(n, k)` of the examples in each orthonormal direction."""
    values, vectors = np.linalg.eigh(block)
    values, vectors = _cleaned(values[::-1], tolerance), vectors[:, ::-1]
    k = rank_of(values, share)
    return np.asarray(vectors[:, :k] / np.sqrt(values[:k]))


def overlap(angles: Floats) -> float:
    """Return the mean squared cosine of principal angles, 0 to 1; nan if there are none."""
    return float(np.mean(np.cos(angles) ** 2)) if len(angles) else float("nan")


def random_overlap(one: int, other: int, size: int) -> float:
    """Return the exact mean of `overlap` for uniformly random subspaces, max(k, l) / P.

    Gradients of one model share much more by its architecture alone, so this null is easily beaten
    and decides nothing; the held-out set does.

    Args:
        one: dimension of the first subspace, k.
        other: dimension of the second, l.
        size: P.
    """
    return max(one, other) / size


def random_least_angle(one: int, other: int, size: int) -> float:
    """Return the expected smallest principal angle of uniformly random subspaces, in radians.

    It is the edge of the limiting law, cos² = (√(a(1 − b)) + √(b(1 − a)))² with a = k/P, b = l/P
    (Wachter 1980); single draws scatter about it by P^(−2/3). 0 where k + l is at least P.

    Args:
        one: dimension of the first subspace, k.
        other: dimension of the second, l.
        size: P.
    """
    a, b = one / size, other / size
    if a + b >= 1:
        return 0.0
    return float(np.arccos(np.sqrt(a * (1 - b)) + np.sqrt(b * (1 - a))))
