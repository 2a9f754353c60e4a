"""Factors of per-example gradients against the gradients that they stand for, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geomix.measures import gram
from geomix.measures.factors import (
    Factor,
    Lookup,
    Outer,
    Whole,
    along,
    materialise,
    materialised,
    projected,
)
from geomix.measures.gram import gram_matrix
from geomix.measures.sketch import projection

O, I = 12, 5  # noqa: E741


def draw(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def some(seed: int, examples: int, tokens: int) -> tuple[list[Factor], Tensor]:
    """An expert, a whole product and a lookup of one parameter, and their gradients by loops."""
    rng = np.random.default_rng(seed)
    ids = torch.tensor(rng.integers(0, 4, (examples, tokens)))  # few rows: they meet
    rows, part = draw(seed + 1, examples, tokens, O), draw(seed + 2, examples, tokens, 4)
    columns, other = draw(seed + 3, examples, tokens, I), draw(seed + 4, examples, tokens, I)
    values = draw(seed + 5, examples, tokens, I)
    dense = torch.zeros(examples, O, I, dtype=torch.float64)
    for i in range(examples):
        for p in range(tokens):
            dense[i] += torch.outer(rows[i, p], columns[i, p])
            dense[i, 4:8] += torch.outer(part[i, p], other[i, p])
            dense[i, ids[i, p]] += values[i, p]
    return [Outer(part, other, 4), Outer(rows, columns), Lookup(ids, values)], dense


@pytest.mark.parametrize("first", range(O))
@pytest.mark.parametrize("count", [1, 3, 8, 12])
def test_rows_of_the_gradients(first: int, count: int) -> None:
    factors, dense = some(0, 3, 4)
    last = min(first + count, O)
    for chosen in (factors, factors[::-1]):
        torch.testing.assert_close(materialised(chosen, 3, first, last), dense[:, first:last])


def test_what_is_written_into_is_overwritten() -> None:
    factors, dense = some(0, 3, 4)
    for chosen in (factors, factors[:1]):
        out = torch.full((3, O, I), torch.nan, dtype=torch.float64)
        materialise(chosen, 0, out)
        assert not out.isnan().any()
    torch.testing.assert_close(materialised([Whole(dense), *factors], 3, 2, 7), 2 * dense[:, 2:7])


def test_products_along_a_direction_and_sketches() -> None:
    factors, dense = some(1, 3, 4)
    direction = draw(9, O, I)
    expected = torch.einsum("boi,oi->b", dense, direction)
    torch.testing.assert_close(along(factors, direction), expected)
    torch.testing.assert_close(
        along([Whole(dense)], direction.float()), expected, rtol=1e-5, atol=1e-5
    )
    onto = projection(3, "w", (O, I), 16)
    assert onto.columns is not None
    sketch = torch.einsum("ko,boi,li->bkl", onto.rows.double(), dense, onto.columns.double())
    for chosen in (factors, [Whole(dense)]):
        torch.testing.assert_close(projected(chosen, onto), sketch.flatten(1))
    vector = projection(3, "b", (I,), 16)
    torch.testing.assert_close(
        projected([Whole(dense[:, :1])], vector), dense[:, 0] @ vector.rows.double().T
    )


@pytest.mark.parametrize("way", ["tokens", "matrices", "slices", "chosen"])
def test_gram_matrix_by_either_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two examples, batches of different lengths, one in which nothing was used."""
    monkeypatch.setattr(gram, "_SIDE", 2)
    if way != "chosen":
        monkeypatch.setattr(gram, "token_work", lambda _: 0 if way == "tokens" else 2**62)
    batches = [
        some(seed, examples, tokens)
        for seed, (examples, tokens) in enumerate([(3, 4), (2, 1), (4, 6)])
    ]
    dense = torch.cat(
        [d for _, d in batches[:2]] + [torch.zeros(2, O, I, dtype=torch.float64), batches[2][1]]
    )
    given = [batches[0][0], batches[1][0], [], batches[2][0]]
    memory = 1 if way == "slices" else 1 << 20
    found = gram_matrix(given, [3, 2, 2, 4], (O, I), memory)
    torch.testing.assert_close(found, torch.einsum("aoi,boi->ab", dense, dense))
    assert torch.equal(found, found.T)
    assert not gram_matrix([[], []], [1, 2], (O, I), memory).any()


def test_the_cheaper_way_is_chosen() -> None:
    """Multiplications by hand: 3 examples of 2 tokens, a parameter of 12 × 5."""
    factors: list[Outer | Lookup] = [Outer(draw(0, 3, 2, O), draw(1, 3, 2, I))]
    assert gram.token_work([factors]) == 6 * 6 * (12 + 5) // 2
    assert gram.matrix_work([factors], 3, (O, I)) == 6 * 60 + 3 * (3 + 64) // 2 * 60
    lookup: list[Outer | Lookup] = [
        *factors,
        Lookup(torch.zeros(3, 2, dtype=torch.int64), draw(2, 3, 2, I)),
    ]
    assert gram.token_work([lookup]) == (36 * 17 + 2 * 36 * 5 + 36 * 5) // 2


def test_gradients_that_are_whole_are_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "token_work", lambda _: 0)  # the tokens would be the cheaper way
    factors, dense = some(0, 3, 4)
    found = gram_matrix([[*factors, Whole(dense)]], [3], (O, I), 1 << 20)
    torch.testing.assert_close(found, 4 * torch.einsum("aoi,boi->ab", dense, dense))
