"""Association by hand, its identities, and its null."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geomix.data.example import Example
from geomix.measures.scores.association import Association, associate


def matrix(n: int = 6, spread: float = 3.0) -> np.ndarray:
    """ln p(y_i | x_j), `(prompts, answers)`."""
    return np.random.default_rng(4).normal(size=(n, n)) * spread - 5


def column(table: np.ndarray, i: int, own: int) -> tuple[float, np.ndarray]:
    return float(table[own, i]), np.delete(table[:, i], own)


def test_two_prompts_by_hand() -> None:
    """p = ½ after its own, 1/16 after the other: three bits; with the own one in the mean 0.83."""
    found = associate(math.log(1 / 2), np.log([1 / 16]), entropy=7.0)
    assert found["association"] == pytest.approx(3)
    assert found["association_geometric"] == pytest.approx(3)
    assert found["association_capped"] == pytest.approx(math.log2(0.5 / ((0.5 + 1 / 16) / 2)))
    assert found["shared_bits"] == pytest.approx(7 - 4)


@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
def test_bits_are_what_is_associated_and_what_is_shared(spread: float) -> None:
    table, entropy = matrix(spread=spread), 41.4
    for i in range(6):
        own, others = column(table, i, i)
        found = associate(own, others, entropy)
        a, v = found["association"], found["shared_bits"]
        assert a is not None
        assert v is not None
        assert a + v == pytest.approx(entropy + own / math.log(2), abs=1e-9)
        if abs(a) < 900:
            r, n = 2.0**a, 6
            assert found["association_capped"] == pytest.approx(math.log2(n * r / (r + n - 1)))
        assert found["association_capped"] is not None
        assert found["association_capped"] <= math.log2(6) + 1e-12


def test_what_is_known_of_an_answer_in_general_cancels() -> None:
    own, others = column(matrix(), 2, 2)
    first, shifted = associate(own, others, None), associate(own - 7, others - 7, None)
    assert first["shared_bits"] is None
    for name in ("association", "association_capped", "association_geometric"):
        assert shifted[name] == pytest.approx(first[name], abs=1e-9)


def test_pairs_put_together_anew_carry_nothing() -> None:
    """Over every prompt in the place of the own one: E 2^a_c = 1, E a ≤ 0, E a_g = 0."""
    table = matrix()
    for i in range(6):
        found = [associate(*column(table, i, own)) for own in range(6)]
        capped, a, g = (
            np.array([one[name] for one in found], float)
            for name in ("association_capped", "association", "association_geometric")
        )
        assert np.mean(2**capped) == pytest.approx(1)
        assert a.mean() <= 1e-12
        assert g.mean() == pytest.approx(0, abs=1e-9)
        assert np.mean(capped >= 1) <= 0.5


def test_the_cost_is_every_answer_after_every_prompt() -> None:
    examples = [Example(f"q{i}", f"a{i}") for i in range(5)] + [Example("b?", "b", entropy=0.0)]
    cost = Association().cost(examples)
    assert (cost.prompts, cost.answers) == (6, 30)
    assert Association().cost(examples[5:]).answers == 0
