"""Geometry of single examples' gradients: their sets' products, conflicts and cosines.

Everything follows from the Gram matrix of per-example gradients. Each is the gradient of the
example's share of its set's mean loss, so that the sum over a set's rows and columns is the set's
inner product. Shapes: N examples, s sets, n examples of one set; the leading axes `...` are groups
of parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomix.measures.cosine import Floats

Indices = NDArray[np.int64]


def members(owners: Indices, of: int) -> Indices:
    """Return the indices `(n,)` of one set's examples; `owners` `(N,)` is the set of each."""
    return np.flatnonzero(owners == of)


def set_products(gram: Floats, owners: Indices) -> Floats:
    """Return the inner products of the sets' gradients, `(..., s, s)`.

    Args:
        gram: `(..., N, N)`.
        owners: `(N,)`, the set of each example, from 0.
    """
    belongs = (owners == np.arange(int(owners.max()) + 1)[:, None]).astype(np.float64)
    return np.asarray(belongs @ gram @ belongs.T)


def largest_share(block: Floats) -> Floats:
    """Return the longest gradient's share of a set's summed squared lengths, `(...)`, 1/n to 1.

    Args:
        block: `(..., n, n)`, of the Gram matrix.
    """
    squares = np.maximum(np.diagonal(block, axis1=-2, axis2=-1), 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(squares.max(axis=-1) / squares.sum(axis=-1))


def example_cosines(gram: Floats) -> Floats:
    """Return the cosines between the examples' gradients, `(..., N, N)` in [−1, 1].

    nan where a gradient is zero. Unlike `geomix.measures.cosine.cosines` it accepts products of
    single precision, in which two similar gradients may exceed 1.

    Args:
        gram: `(..., N, N)`.
    """
    length = _root(np.diagonal(gram, axis1=-2, axis2=-1))
    product = length[..., :, None] * length[..., None, :]
    found = np.divide(gram, product, out=np.full_like(product, np.nan), where=product > 0)
    return np.clip(found, -1.0, 1.0)


def _root(squares: Floats) -> Floats:
    """Return lengths; a square that rounding made negative gives 0."""
    return np.sqrt(np.maximum(squares, 0.0))


def pair_values(matrix: Floats, owners: Indices, first: int, second: int) -> Floats:
    """Return a symmetric matrix's entries for all pairs of two sets, or of one set, each pair once.

    Args:
        matrix: `(..., N, N)`, such as `example_cosines(gram)`.
        owners: `(N,)`, the set of each example.
        first: a set.
        second: another, or the same: then without an example's pair with itself.

    Returns:
        `(..., pairs)`.
    """
    a, b = members(owners, first), members(owners, second)
    if first != second:
        return block_of(matrix, a, b).reshape(*matrix.shape[:-2], -1)
    i, j = np.triu_indices(len(a), 1)
    return np.asarray(matrix[..., a[i], a[j]])


def conflicts(gram: Floats, owners: Indices, first: int, second: int, most: int) -> Indices:
    """Return the pairs of examples with the most negative inner products, most negative first.

    Args:
        gram: `(N, N)`.
        owners: `(N,)`, the set of each example.
        first: set of the first example of a pair.
        second: set of its second example; may equal `first`.
        most: largest number of pairs; those that do not conflict are left out.

    Returns:
        `(pairs, 2)` indices into the Gram matrix.
    """
    a, b = members(owners, first), members(owners, second)
    block = block_of(gram, a, b)
    if first == second:  # each pair once
        block = np.triu(block, 1)
    ranked = np.argsort(block, axis=None, kind="stable")
    i, j = np.unravel_index(ranked[: min(most, int((block < 0).sum()))], block.shape)
    return np.stack([a[i], b[j]], axis=1)


def with_set(gram: Floats, owners: Indices, index: int) -> Floats:
    """Return the inner product of every example's gradient with a set's, `(..., N)`."""
    return np.asarray(gram[..., members(owners, index)].sum(axis=-1))


def by_conflict(gram: Floats, owners: Indices, first: int, second: int) -> Indices:
    """Return the indices of all examples by set, within a set the strongest conflict first.

    Conflict is with `second`'s gradient for the examples of `first`, and with `first`'s for all
    others.

    Args:
        gram: `(N, N)`.
        owners: `(N,)`, the set of each example.
        first: D_A.
        second: D_B.
    """
    against = np.where(
        owners == first, with_set(gram, owners, second), with_set(gram, owners, first)
    )
    return np.lexsort((against, owners)).astype(np.int64)


def cosine_with_set(gram: Floats, owners: Indices, index: int) -> Floats:
    """Return the cosine of each example's gradient with a set's, `(N,)`; nan for zero gradients."""
    square = set_products(gram, owners)[index, index]
    length = _root(np.diagonal(gram)) * _root(square)
    found = np.full(len(owners), np.nan)
    np.divide(with_set(gram, owners, index), length, out=found, where=length > 0)
    return found


def block_of(gram: Floats, rows: Indices, columns: Indices) -> Floats:
    """Return the block of products of some examples with some others, `(..., rows, columns)`."""
    return np.asarray(gram[..., rows[:, None], columns])
