"""Answers after other prompts, against each pair read alone and unpadded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from geomix.data.example import Example, TokenisedExample
from geomix.data.tokenise import tokenise_all
from geomix.models.candidates import Candidates
from geomix.models.load import LoadedModel
from geomix.models.score import answer_of, score


@pytest.fixture
def mixed(loaded: LoadedModel) -> list[TokenisedExample]:
    """Prompts and answers of several lengths; one answer is empty."""
    prompts = ["a?", "What is the value of the key q7?", "bb?", "The value of x is?"]
    targets = ["red", "a much longer answer 17", "", "z"]
    made = [Example(p, t) for p, t in zip(prompts, targets, strict=True)]
    return tokenise_all(loaded.tokenizer, made)


def alone(loaded: LoadedModel, prompt: TokenisedExample, answer: TokenisedExample) -> float:
    """Summed log-probability of an answer's tokens after a prompt, by one plain pass."""
    start, said = prompt.target_start, answer_of(answer)
    ids = torch.tensor([[*prompt.ids[:start], *said]])
    model: Any = loaded.model
    with torch.no_grad():
        table = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return sum(float(table[start - 1 + t, token]) for t, token in enumerate(said))


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("can_cache", [True, False])
def test_every_pair_is_scored_as_if_alone(
    loaded: LoadedModel, mixed: list[TokenisedExample], size: int, can_cache: bool
) -> None:
    assert loaded.can_cache, "else the cache is not tested"
    asked = Candidates(replace(loaded, can_cache=can_cache), mixed, size)
    answers = [[3, 0, 1, 2], [1, 0], [2, 2, 3], [0, 1, 2, 3]]
    found = asked.log_probabilities(range(4), answers)
    for i, wanted in enumerate(answers):
        expected = [alone(loaded, mixed[i], mixed[j]) for j in wanted]
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-4)


def test_the_own_answer_is_the_evaluations_own_loss(
    loaded: LoadedModel, mixed: list[TokenisedExample]
) -> None:
    own = Candidates(loaded, mixed, 8).log_probabilities(range(4), [[i] for i in range(4)])
    losses = [answer.nll for answer in score(loaded, mixed, 8)]
    np.testing.assert_allclose(np.concatenate(own), [-nll for nll in losses], atol=1e-4)


def test_each_prompt_is_read_once(loaded: LoadedModel, mixed: list[TokenisedExample]) -> None:
    """Tokens run: all prompts, padded, then all answers but their last tokens; again none."""
    tokens = 0

    def count(_: Any, args: Any, kwargs: Any) -> None:
        nonlocal tokens
        tokens += kwargs["input_ids"].numel()

    hook = loaded.model.register_forward_pre_hook(count, with_kwargs=True)
    asked = Candidates(loaded, mixed, 8)
    every = [range(4)] * 4
    first = asked.log_probabilities(range(4), every)
    longest = max(e.target_start for e in mixed)
    answers = max(len(answer_of(e)) for e in mixed) - 1
    assert tokens == 4 * longest + 4 * 4 * answers
    again = asked.log_probabilities([1, 0], [[2], [3, 1]])
    hook.remove()
    assert tokens == 4 * longest + 4 * 4 * answers, "known already"
    assert again[0].tolist() == [first[1][2]]
    assert again[1].tolist() == [first[0][3], first[0][1]]


def test_an_answer_without_positions_has_no_number(
    loaded: LoadedModel, mixed: list[TokenisedExample]
) -> None:
    model: Any = loaded.model
    model.config.max_position_embeddings = mixed[1].target_start + 3
    for can_cache in (True, False):
        asked = Candidates(replace(loaded, can_cache=can_cache), mixed, 8)
        (found,) = asked.log_probabilities([1], [[0, 1, 2, 3]])
        fits = [len(answer_of(e)) <= 3 for e in mixed]
        assert np.isfinite(found).tolist() == fits
        assert not all(fits)
