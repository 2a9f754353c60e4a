"""The condition for mixing at stage 2, with planted gradients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.measures.stage2_condition import Gradients, stage2_condition

Array = NDArray[np.float64]
A = np.array([1.0, 0.0])


def planted(b: Array, m: Array, a: Array = A) -> Gradients:
    norm = np.linalg.norm
    return Gradients(float(b @ a), float(m @ a), float(norm(a)), float(norm(b)), float(norm(m)))


def step_change(a: Array, own: Array, mixed: Array, beta: tuple[float, float]) -> float:
    """How much less a mixed step of size 1 raises a linear loss of D_A than one on D_B."""
    return float(-own @ a + (beta[0] * own + beta[1] * mixed) @ a)


@pytest.mark.parametrize(
    ("b", "m", "state"),
    [
        ([-1.0, 0.0], [1.0, 0.0], "true"),
        ([-1.0, 1.0], [0.5, 0.0], "true"),
        ([1.0, 0.0], [0.5, 0.0], "false"),
        ([-1.0, 0.0], [-2.0, 0.0], "false"),
        # Shorter, and pointing more against D_A than D_B does: it passes as it hardly moves.
        ([-1.0, 2.0], [-0.1, 0.0], "by size"),
        ([-1.0, 2.0], [-0.9, 0.0], "true"),  # as bad an angle, but not small
        ([-1.0, 0.0], [0.0, 0.0], "by size"),  # a set that is known perfectly
    ],
)
def test_planted_gradients(b: list[float], m: list[float], state: str) -> None:
    found = stage2_condition(planted(np.array(b), np.array(m)))
    assert found.state == state
    assert found.holds is (state != "false")


def test_the_margin_is_what_a_step_gains_on_a_linear_loss() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b, m = rng.normal(size=(3, 4))
        betas = (float(rng.uniform()), float(rng.uniform()))
        found = stage2_condition(planted(b, m, a), *betas)
        assert found.margin == pytest.approx(step_change(a, b, m, betas), abs=1e-12)
        assert found.cos_m == pytest.approx(a @ m / np.linalg.norm(a) / np.linalg.norm(m))


def test_swapped_weights_agree_in_sign_where_they_sum_to_one() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        a, b, m = rng.normal(size=(3, 4))
        beta = float(rng.uniform(0.01, 0.99))
        g = planted(b, m, a)
        found = stage2_condition(g, beta, 1 - beta)
        assert found.holds == found.printed_holds == (g.gm_ga > g.gb_ga)
    # With other weights, as beside replay, the two forms are two conditions.
    loose = stage2_condition(planted(np.array([1.0, 0.0]), np.array([1.5, 0.0])), 0.2, 0.6)
    assert (loose.holds, loose.printed_holds) == (True, False)
