"""Rows of one example and of several, and the weights that make a sum a mean."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geomix.data.batch import WORTHWHILE, Reduction, chunks, collate, packed, token_weights
from geomix.data.example import IGNORED, Example, TokenisedExample


def tokens(prompt: int, target: int, first: int = 10) -> TokenisedExample:
    ids = tuple(range(first, first + prompt + target))
    return TokenisedExample(ids, (IGNORED,) * prompt + ids[prompt:], Example("p", "t"))


@pytest.mark.parametrize("reduction", ["token", "example"])
@given(targets=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_the_weights_of_all_target_tokens_sum_to_one(
    reduction: Reduction, targets: list[int]
) -> None:
    weights = token_weights([tokens(2, n) for n in targets], reduction)
    assert sum(n * w for n, w in zip(targets, weights, strict=True)) == pytest.approx(1, abs=1e-12)


def test_weights_by_hand() -> None:
    """Targets of 1, 2 and 5 tokens: each token 1/8; or each example 1/3, shared by its tokens."""
    examples = [tokens(3, 1), tokens(1, 2), tokens(4, 5)]
    assert token_weights(examples, "token") == [1 / 8, 1 / 8, 1 / 8]
    assert token_weights(examples, "example") == pytest.approx([1 / 3, 1 / 6, 1 / 15])


def test_rows_are_padded_on_the_right() -> None:
    batch = collate([tokens(1, 2), tokens(2, 2, 20)], [0.5, 0.25], pad_id=7)
    assert batch.ids.tolist() == [[10, 11, 12, 7], [20, 21, 22, 23]]
    assert batch.positions.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert batch.targets.tolist() == [11, 12, 22, 23]
    assert batch.rows.tolist() == [0, 0, 1, 1]
    assert batch.columns.tolist() == [0, 1, 1, 2]
    assert batch.owners.tolist() == [0, 0, 1, 1]
    assert batch.weights.tolist() == [0.5, 0.5, 0.25, 0.25]
    assert batch.weights.dtype == torch.float64


def test_packed_rows_by_hand() -> None:
    """Lengths 2, 5 and 3 in rows of 6: the longest first; 5 alone, 3 and 2 together."""
    examples = [tokens(1, 1), tokens(3, 2, 20), tokens(1, 2, 30)]
    batch = collate(examples, [1.0, 2.0, 3.0], pad_id=7, width=6)
    assert batch.ids.tolist() == [[20, 21, 22, 23, 24], [30, 31, 32, 10, 11]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert batch.owners.tolist() == [0, 1, 1, 2, 2], "in the order given"
    assert batch.targets.tolist() == [11, 23, 24, 31, 32]
    assert list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True)) == [
        (1, 3),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
    ]
    assert batch.weights.tolist() == [1, 2, 2, 3, 3]
    assert batch.per_example(torch.tensor([1.0, 2, 4, 8, 16])).tolist() == [1, 6, 24]


def test_padding_of_a_packed_row_begins_no_example() -> None:
    examples = [tokens(2, 4), tokens(1, 2, 20), tokens(1, 1, 30)]
    batch = collate(examples, [1.0] * 3, pad_id=7, width=6)
    assert batch.ids[1].tolist() == [20, 21, 22, 30, 31, 7]
    assert batch.positions[1].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_pad_token_that_is_the_end_token_still_carries_loss_where_it_ends() -> None:
    """Many tokenizers have no pad token of their own; the end of the target must be learnt."""
    ended = TokenisedExample((5, 6, 2), (IGNORED, 6, 2), Example("p", "t"))
    batch = collate([ended, tokens(1, 4)], [1, 1], pad_id=2)
    assert batch.ids[0].tolist() == [5, 6, 2, 2, 2]
    assert batch.targets[batch.owners == 0].tolist() == [6, 2]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 80))
def test_every_example_has_one_place_and_rows_are_as_wide_as_asked(
    lengths: list[int], width: int
) -> None:
    rows = packed(lengths, width)
    assert sorted(chain(*rows)) == list(range(len(lengths)))
    fullest = max(sum(lengths[i] for i in row) for row in rows)
    assert fullest <= max(width, *lengths)
    padded = len(lengths) * max(lengths)
    assert len(rows) == len(lengths) or len(rows) * fullest <= WORTHWHILE * padded
    assert packed(lengths, width) == rows


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 120))
def test_packed_rows_hold_at_most_twice_the_tokens_that_they_must(
    lengths: list[int], width: int
) -> None:
    """Best fit leaves at most one row half empty (any two rows together overflow one)."""
    rows = packed(lengths, width)
    if len(rows) < len(lengths):
        filled = sorted(sum(lengths[i] for i in row) for row in rows)
        assert all(a + b > width for a, b in pairwise(filled))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(12, 40))
def test_every_token_of_a_packed_batch_is_one_of_an_example(lengths: list[int], width: int) -> None:
    """Read back from ids and positions alone, as a model would, against the examples."""
    examples = [tokens(1, n, 100 * i) for i, n in enumerate(lengths, start=1)]
    batch = collate(examples, [1.0] * len(examples), 7, width)
    read = []
    for ids, positions in zip(batch.ids.tolist(), batch.positions.tolist(), strict=True):
        starts = [at for at, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            assert positions[start:end] == list(range(end - start))
            read.append(tuple(token for token in ids[start:end] if token != 7))
    assert sorted(read) == sorted(example.ids for example in examples)
    for row, column, target in zip(batch.rows, batch.columns, batch.targets, strict=True):
        assert batch.ids[row, column + 1] == target


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_chunks_are_the_list(items: list[int], size: int) -> None:
    parts = [list(part) for part in chunks(items, size)]
    assert list(chain(*parts)) == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)


def test_the_fullest_row_that_has_room_takes_the_next_example() -> None:
    """Rows of 10: 3 goes to 7, not to 6, so that 2 and 2 find room; any other choice needs three.

    The lengths stand out of order: indices are those of the list.
    """
    assert packed([2, 7, 3, 6, 2], 10) == [[1, 2], [3, 0, 4]]


def test_rows_are_packed_where_that_saves_enough() -> None:
    """Rows of one where packing saves nothing, or costs; 17 tokens for 20 are few enough."""
    assert packed([10] * 5, 10) == [[i] for i in range(5)]
    assert packed([6, 5, 5], 10) == [[0], [1], [2]]
    assert len(packed([10, 7], 17)) == 1
    assert len(packed([10, 8], 18)) == 2
