"""The Gram matrix of one parameter's per-example gradients, by the cheaper of two methods.

Shapes: N examples in batches of B, `(O, I)` the parameter as a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geomix.measures.factors import (
    Factor,
    Lookup,
    Outer,
    Whole,
    crossed,
    materialise,
    shared_rows,
    wide,
)

_SIDE = 64
"""Examples per side of the blocks of the upper triangle; the lower triangle is not computed."""


_SLICE = 1 << 24
"""Most bytes of gradients materialised at once: more are no faster, as they leave the cache."""


def gram_matrix(
    batches: Sequence[Sequence[Factor]],
    counts: Sequence[int],
    shape: tuple[int, int],
    memory: int,
) -> Tensor:
    """Return inner products of all pairs of per-example gradients of one parameter.

    Products are computed in the factors' dtype and summed in float64.

    Args:
        batches: the parameter's factors in each batch; empty where it was not used.
        counts: examples of each batch, N in all.
        shape: of the parameter as a matrix, `(O, I)`.
        memory: most bytes of gradients materialised at once; at least one row of each example's
            gradient is formed.

    Returns:
        `(N, N)` float64, symmetric.
    """
    n = sum(counts)
    if not any(batches):
        return torch.zeros(n, n, dtype=torch.float64)
    thin = [[f for f in factors if not isinstance(f, Whole)] for factors in batches]
    known = sum(map(len, thin)) == sum(map(len, batches))
    if known and token_work(thin) < matrix_work(thin, n, shape):
        gram = _by_token(thin, counts)
    else:
        gram = _by_matrix(batches, counts, shape, memory)
    upper = torch.triu(gram)
    return upper + torch.triu(upper, 1).T


Thin = Sequence[Sequence[Outer | Lookup]]


def token_work(batches: Thin) -> int:
    """Return the number of multiplications of the method through tokens."""
    work = 0
    for a in (f for factors in batches for f in factors):
        for b in (f for factors in batches for f in factors):
            work += _tokens(a) * _tokens(b) * _width(a, b)
    return work // 2


def matrix_work(batches: Thin, n: int, shape: tuple[int, int]) -> int:
    """Return the number of multiplications of the method through materialised gradients."""
    outer = [f for factors in batches for f in factors if isinstance(f, Outer)]
    forming = sum(_tokens(f) * f.rows.shape[-1] * f.columns.shape[-1] for f in outer)
    return forming + n * (n + _SIDE) // 2 * shape[0] * shape[1]


def _tokens(factor: Outer | Lookup) -> int:
    return wide(factor).shape[0] * wide(factor).shape[1]


def _width(a: Outer | Lookup, b: Outer | Lookup) -> int:
    """Return the number of multiplications for a pair of tokens."""
    if isinstance(a, Outer) and isinstance(b, Outer):
        shared = len(shared_rows(a, b))
        return shared + a.columns.shape[-1] if shared else 0
    return wide(a).shape[-1]


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _by_token(batches: Thin, counts: Sequence[int]) -> Tensor:
    """Fill the upper triangle batch by batch."""
    starts, n = _starts(counts), sum(counts)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for i, one in enumerate(batches):
        for j in range(i, len(batches)):
            if one and batches[j]:
                block = crossed(one, batches[j])
                rows = slice(starts[i], starts[i] + counts[i])
                gram[rows, starts[j] : starts[j] + counts[j]] = block.cpu()
    return gram


def _by_matrix(
    batches: Sequence[Sequence[Factor]],
    counts: Sequence[int],
    shape: tuple[int, int],
    memory: int,
) -> Tensor:
    """Fill the upper triangle from some rows of all gradients at a time."""
    n, (height, width) = sum(counts), shape
    some = wide(next(f for factors in batches for f in factors))
    at_once = max(1, min(memory, _SLICE) // (n * width * some.element_size()))
    gram = some.new_zeros(n, n, dtype=torch.float64)
    room = some.new_zeros(n * min(at_once, height) * width)
    for first in range(0, height, at_once):
        rows = min(at_once, height - first)
        formed = room[: n * rows * width].view(n, rows, width)
        for factors, count, start in zip(batches, counts, _starts(counts), strict=True):
            if factors:
                materialise(factors, first, formed[start : start + count])
        flat = formed.flatten(1)
        for begin in range(0, n, _SIDE):
            gram[begin : begin + _SIDE, begin:] += flat[begin : begin + _SIDE] @ flat[begin:].T
    return gram.cpu()
