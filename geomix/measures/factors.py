"""Per-example gradients as sums of outer products, and results computed without forming them.

At token p a weight has the input x_p and the output gradient g_p, so example i's gradient is G_i =
Σ g_p x_pᵀ over its tokens: two thin factors. A parameter used in several places (a tied embedding)
has one sum for each place.

Shapes: B examples of a batch, t tokens of the longest (g is 0 where an example has fewer), `(O, I)`
the parameter as a matrix (`matrix_shape`), K entries of a sketch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geomix.measures.sketch import Projection


@dataclass(frozen=True, slots=True)
class Outer:
    """The sum Σ rows_p columns_pᵀ, in the parameter's rows from `first` on.

    Attributes:
        rows: `(B, t, o)`.
        columns: `(B, t, I)`.
        first: index of the first row; experts are stacked.
    """

    rows: Tensor
    columns: Tensor
    first: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """The sum Σ e_p values_pᵀ with unit vectors e_p: the gradient of rows that were looked up.

    Attributes:
        ids: `(B, t)` int64, rows of the parameter.
        values: `(B, t, I)`.
    """

    ids: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Whole:
    """The gradients themselves: for vectors, and where no factors are known.

    Attributes:
        values: `(B, O, I)`; for a vector `(B, 1, I)`.
    """

    values: Tensor


Factor = Outer | Lookup | Whole


def materialise(factors: Sequence[Factor], first: int, out: Tensor) -> None:
    """Write some rows of each example's gradient.

    Args:
        factors: of one parameter, at least one.
        first: index of the first row to write.
        out: `(B, rows, I)`, overwritten.
    """
    whole = [f for f in factors if isinstance(f, Outer) and _within(f, first, out) == _all(out)]
    if whole:
        rows, columns = _rows(whole[0], first, slice(0, out.shape[1])), whole[0].columns
        torch.bmm(rows.mT, columns, out=out)
    else:
        out.zero_()
    for factor in factors:
        if not whole or factor is not whole[0]:
            _add(factor, first, out)


def materialised(factors: Sequence[Factor], examples: int, first: int, last: int) -> Tensor:
    """Return rows `first` to `last` of each example's gradient, `(B, last − first, I)`.

    Args:
        factors: of one parameter, at least one.
        examples: B.
        first: index of the first row.
        last: index after the last row.
    """
    dense = wide(factors[0])
    out = dense.new_empty(examples, last - first, dense.shape[-1])
    materialise(factors, first, out)
    return out


def _all(out: Tensor) -> slice:
    return slice(0, out.shape[1])


def _within(factor: Outer, first: int, out: Tensor) -> slice:
    """Return the slice of the rows from `first` on that a factor contributes to."""
    begin = max(factor.first - first, 0)
    return slice(begin, max(begin, min(factor.first + factor.rows.shape[-1] - first, out.shape[1])))


def _rows(factor: Outer, first: int, within: slice) -> Tensor:
    """Return the factor's own rows within that slice."""
    shift = first - factor.first
    return factor.rows[..., within.start + shift : within.stop + shift]


def _add(factor: Factor, first: int, out: Tensor) -> None:
    if isinstance(factor, Whole):
        out += factor.values[:, first : first + out.shape[1]]
    elif isinstance(factor, Lookup):
        height = out.shape[1]
        here = (factor.ids >= first) & (factor.ids < first + height)
        example, _ = here.nonzero(as_tuple=True)
        at = example * height + factor.ids[here] - first
        out.view(-1, out.shape[-1]).index_add_(0, at, factor.values[here])
    else:
        within = _within(factor, first, out)
        if within.start < within.stop:
            out[:, within] += _rows(factor, first, within).mT @ factor.columns


def along(factors: Sequence[Factor], direction: Tensor) -> Tensor:
    """Return each example's gradient times one direction, `(B,)` float64 (ghost product).

    <G_i, V> = Σ g_pᵀ V x_p: no gradient is formed.

    Args:
        factors: of one parameter.
        direction: V, `(O, I)`.
    """
    direction = direction.to(wide(factors[0]).dtype)
    return torch.stack([_along(factor, direction) for factor in factors]).sum(0)


def _along(factor: Factor, direction: Tensor) -> Tensor:
    if isinstance(factor, Whole):
        met = factor.values * direction
    elif isinstance(factor, Lookup):
        met = factor.values * direction[factor.ids]
    else:
        mine = direction[factor.first : factor.first + factor.rows.shape[-1]]
        met = factor.rows * (factor.columns @ mine.T)
    return met.sum(-1).double().sum(1)


def projected(factors: Sequence[Factor], onto: Projection) -> Tensor:
    """Return the sketch of each example's gradient, `(B, K)`.

    Args:
        factors: of one parameter.
        onto: the parameter's projection; a vector's has no columns.
    """
    return torch.stack([_projected(factor, onto).flatten(1) for factor in factors]).sum(0)


def _projected(factor: Factor, onto: Projection) -> Tensor:
    if onto.columns is None:
        assert isinstance(factor, Whole)  # a vector's gradients are short
        return factor.values[:, 0] @ onto.rows.to(factor.values.dtype).T
    if isinstance(factor, Whole):
        left, right = (side.to(factor.values.dtype) for side in (onto.rows, onto.columns))
        return left @ factor.values @ right.T
    if isinstance(factor, Lookup):
        thin, dtype = onto.rows.T[factor.ids], factor.values.dtype
        return thin.to(dtype).mT @ (factor.values @ onto.columns.to(dtype).T)
    dtype = factor.rows.dtype
    mine = onto.rows[:, factor.first : factor.first + factor.rows.shape[-1]].to(dtype)
    return (factor.rows @ mine.T).mT @ (factor.columns @ onto.columns.to(dtype).T)


def crossed(one: Sequence[Outer | Lookup], other: Sequence[Outer | Lookup]) -> Tensor:
    """Return inner products of the gradients of two batches, `(B, B')` float64, token by token.

    <G_i, G_j> = Σ_pq (g_p·g_q)(x_p·x_q): cheap where tokens are few and the parameter is large.

    Args:
        one: factors of one parameter.
        other: factors of the same parameter in the other batch.
    """
    examples, others = wide(one[0]).shape[0], wide(other[0]).shape[0]
    total = wide(one[0]).new_zeros(examples, others, dtype=torch.float64)
    for a in one:
        for b in other:
            product = _token_products(a, b)
            if product is not None:
                total += product
    return total


def _token_products(a: Outer | Lookup, b: Outer | Lookup) -> Tensor | None:
    """Return two factors' token products, summed by example; None if they share no row."""
    met = _met(a, b)
    if met is None:
        return None
    inner = wide(a).flatten(0, 1) @ wide(b).flatten(0, 1).T
    inner.mul_(met)
    (examples, t), (others, u) = wide(a).shape[:2], wide(b).shape[:2]
    return inner.view(examples, t, others, u).sum(-1).double().sum(1)


def _met(a: Outer | Lookup, b: Outer | Lookup) -> Tensor | None:
    """Return inner products of the row sides of all pairs of tokens, `(B t, B' t')`."""
    if isinstance(a, Lookup):
        if isinstance(b, Lookup):
            return a.ids.reshape(-1, 1) == b.ids.reshape(1, -1)
        met = _met(b, a)
        return None if met is None else met.T
    rows = a.rows.flatten(0, 1)
    if isinstance(b, Lookup):
        ids = b.ids.reshape(-1) - a.first
        inside = (ids >= 0) & (ids < rows.shape[1])
        return rows[:, ids * inside] * inside
    shared = shared_rows(a, b)
    if not shared:
        return None
    mine, theirs = (
        f.rows[..., shared.start - f.first : shared.stop - f.first].flatten(0, 1) for f in (a, b)
    )
    return mine @ theirs.T


def shared_rows(a: Outer, b: Outer) -> range:
    """Return the parameter's rows that both contribute to."""
    ends = (f.first + f.rows.shape[-1] for f in (a, b))
    return range(max(a.first, b.first), min(ends))


def wide(factor: Factor) -> Tensor:
    """Return the side of a factor that is as wide as the parameter, `(B, t, I)`."""
    return factor.columns if isinstance(factor, Outer) else factor.values
