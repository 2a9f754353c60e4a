"""KL in both directions, by enumeration on three tokens and against scipy on a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from geomix.data.example import TokenisedExample
from geomix.models.load import LoadedModel
from geomix.models.set_divergence import divergences_of, set_divergences

P, Q = (0.5, 0.25, 0.25), (0.7, 0.2, 0.1)
"""Two distributions over three tokens, whose divergences differ by 15 %."""


def logits(*distributions: tuple[float, ...]) -> torch.Tensor:
    """Up to a constant, which a model's logits have too."""
    return torch.tensor(distributions, dtype=torch.float64).log() + 3.0


def test_three_tokens_by_enumeration() -> None:
    forward, reverse = divergences_of(logits(P, P), logits(Q, P))
    expected = [sum(a * math.log(a / b) for a, b in zip(*pair)) for pair in ((P, Q), (Q, P))]  # noqa: B905
    assert abs(expected[0] / expected[1] - 1) > 0.1, "a toy on which they can be told apart"
    assert forward[0] == pytest.approx(expected[0], rel=1e-12)
    assert reverse[0] == pytest.approx(expected[1], rel=1e-12)
    assert forward[1].item() == reverse[1].item() == 0, "KL(p ‖ p) = 0 to the bit"


def test_bounds_and_symmetries() -> None:
    """Pinsker's bound, a permutation of the vocabulary, and more positions than one slice has."""
    drawn = np.random.default_rng(0).normal(size=(2, 600, 30)) * np.linspace(0.1, 9, 600)[:, None]
    one, other = (torch.tensor(x) for x in drawn)
    forward, reverse = divergences_of(one, other)
    variation = 0.5 * np.abs(softmax(drawn[0], -1) - softmax(drawn[1], -1)).sum(-1)
    assert (variation <= np.sqrt(forward.numpy() / 2) + 1e-12).all()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    again = divergences_of(one[:, order], other[:, order])
    np.testing.assert_allclose(again[0], forward, rtol=1e-9, atol=1e-14)
    swapped = divergences_of(other, one)
    assert torch.equal(swapped[0], reverse)
    assert torch.equal(swapped[1], forward)


def test_a_small_step_costs_half_of_its_square_by_the_fisher_matrix() -> None:
    """F = diag(p) − ppᵀ in logits; float32 probabilities would lose all digits of it."""
    p, step = np.array(P), 1e-4 * np.array([1.0, 1.0, -0.5])
    expected = 0.5 * step @ (np.diag(p) - np.outer(p, p)) @ step
    forward, _ = divergences_of(logits(P), logits(P) + torch.tensor(step))
    assert float(forward) == pytest.approx(expected, rel=1e-3)
    diagonal = 0.5 * float(step @ np.diag(p) @ step)
    assert abs(diagonal / expected - 1) > 0.1, "the diagonal alone is another number"


def per_answer(
    one: LoadedModel, other: LoadedModel, examples: list[TokenisedExample]
) -> list[float]:
    """Σ_t KL(p_one ‖ p_other) of each answer, one example at a time, by scipy in float64."""
    found = []
    for example in examples:
        rows = []
        for loaded in (one, other):
            model: Any = loaded.model
            with torch.no_grad():
                all_rows = model(input_ids=torch.tensor([example.ids])).logits[0].double().numpy()
            rows.append(softmax(all_rows[example.target_start - 1 : -1], -1))
        found.append(float(rel_entr(*rows).sum()))
    return found


@pytest.fixture
def moved(tiny_model: Any) -> LoadedModel:
    from geomix.models.load import load_model

    found = load_model(str(tiny_model), torch.device("cpu"))
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(2)
    return found


def test_both_directions_on_a_model_whatever_the_batches(
    loaded: LoadedModel, moved: LoadedModel, facts: list[TokenisedExample]
) -> None:
    """The forward one goes from the reference; tokens and answers are different means."""
    moved.model.train()
    found = set_divergences(moved, {"start": loaded, "itself": moved}, facts, 5)
    assert moved.model.training
    moved.model.eval()
    start, itself = found["start"], found["itself"]
    np.testing.assert_allclose(start.forward, per_answer(loaded, moved, facts), rtol=1e-4)
    np.testing.assert_allclose(start.reverse, per_answer(moved, loaded, facts), rtol=1e-4)
    assert not np.allclose(start.forward, start.reverse, rtol=1e-3)
    assert itself.per_token("forward") == itself.per_answer("reverse") == 0
    tokens = sum(example.target_tokens for example in facts)
    total = start.per_answer("forward") * len(facts)
    assert start.per_token("forward") == pytest.approx(total / tokens)
    for size, width in ((1, None), (12, 64)):
        again = set_divergences(moved, {"start": loaded}, facts, size, width)["start"]
        np.testing.assert_allclose(again.forward, start.forward, rtol=1e-5)
