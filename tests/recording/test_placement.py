"""Owner of each token, against lists written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geomix.data.batch import Batch
from geomix.gradients.tokens import answers_of, tokens_of


def batch(positions: list[list[int]], predicted: list[tuple[int, int, int]]) -> Batch:
    """`predicted` are (row, column, owner)."""
    rows, columns, owners = torch.tensor(predicted).T
    place = torch.tensor(positions)
    count = int(owners.max()) + 1
    return Batch(
        place, place, rows, columns, owners, owners, owners.to(torch.float64), examples=count
    )


PADDED = batch([[0, 1, 2, 3], [0, 1, 2, 3]], [(0, 1, 0), (0, 2, 0), (1, 0, 1)])
PACKED = batch(
    [[0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 2, 3]],
    [(1, 0, 0), (0, 0, 1), (0, 1, 1), (1, 3, 2), (0, 4, 3)],
)
"""Examples 1 and 3 in the first row, 0 and 2 in the second, which ends in padding."""
SWAPPED = batch([[0, 1, 2], [0, 1, 2]], [(1, 1, 0), (0, 0, 1)])


def numbered(n: int, m: int = 1) -> Tensor:
    """A vector of two numbers, the token's and the head's, for each of m heads."""
    token, head = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
    return torch.stack([token, head], dim=-1).double()


@pytest.mark.parametrize(
    ("given", "owners"),
    [
        (PADDED, [0, 0, 0, -1, 1, -1, -1, -1]),
        (PACKED, [1, 1, -1, 3, 3, -1, 0, -1, 2, 2, -1, -1]),
        (SWAPPED, [1, -1, -1, 0, 0, -1]),
    ],
)
def test_a_token_belongs_to_an_example_up_to_its_last_answer(
    given: Batch, owners: list[int]
) -> None:
    assert tokens_of(given).owners.tolist() == owners


def test_rows_of_one_example_each_are_taken_as_they_are() -> None:
    """Up to the longest, and no vector is copied: behind an answer, gradients are zero anyway."""
    placed = tokens_of(PADDED)
    assert placed.rows == (2, 4)
    values = numbered(8)
    assert placed.inputs(values)[..., 0].tolist() == [[0, 1, 2], [4, 5, 6]]
    assert placed.gradients(values).data_ptr() == values.data_ptr()


def test_packed_and_swapped_rows_are_gathered() -> None:
    placed = tokens_of(PACKED)
    assert placed.rows is None
    found = placed.inputs(numbered(12, 2))
    assert found.shape == (4, 2 * 2, 2)
    gradients = placed.gradients(1 + numbered(12, 2))
    expected = {0: [6], 1: [0, 1], 2: [8, 9], 3: [3, 4]}
    for example, tokens in expected.items():
        pairs = [[token, head] for token in tokens for head in (0, 1)]
        assert found[example, : len(pairs)].tolist() == pairs
        assert (gradients[example, : len(pairs)] - 1).tolist() == pairs
        assert not gradients[example, len(pairs) :].any()
    swapped = tokens_of(SWAPPED)
    assert swapped.rows is None
    assert swapped.inputs(numbered(6))[0, :, 0].tolist() == [3, 4]


def test_answers_go_to_their_owners() -> None:
    placed = answers_of(PACKED)
    values = placed.gradients(1 + numbered(5))[..., 0]
    assert values.tolist() == [[1, 0], [2, 3], [4, 0], [5, 0]]
