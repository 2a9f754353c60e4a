"""Padding, and the weights that make a sum a mean."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geomix.data.batch import Reduction, chunks, collate, token_weights
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
    assert batch.mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[-100, 11, 12, -100], [-100, -100, 22, 23]]
    assert batch.weights.tolist() == [0.5, 0.25]
    assert batch.weights.dtype == torch.float64


def test_a_pad_token_that_is_the_end_token_still_carries_loss_where_it_ends() -> None:
    """Many tokenizers have no pad token of their own; the end of the target must be learnt."""
    ended = TokenisedExample((5, 6, 2), (IGNORED, 6, 2), Example("p", "t"))
    batch = collate([ended, tokens(1, 4)], [1, 1], pad_id=2)
    assert batch.labels[0].tolist() == [-100, 6, 2, -100, -100]
    assert batch.mask[0].tolist() == [1, 1, 1, 0, 0]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_chunks_are_the_list(items: list[int], size: int) -> None:
    parts = [list(part) for part in chunks(items, size)]
    assert list(chain(*parts)) == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)
