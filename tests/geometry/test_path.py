"""The change of a loss along a path, where it is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.geometry.path import path_change

Array = NDArray[np.float64]
HESSIAN = np.array([[2.0, 0.7, -0.3], [0.7, 1.0, 0.4], [-0.3, 0.4, 3.0]])
LINEAR = np.array([0.5, -1.0, 0.2])


def curve(t: Array) -> Array:
    """θ(t), a path that bends in all three parameters."""
    found: Array = np.stack([np.cos(3 * t), np.sin(2 * t), t**3], axis=-1)
    return found


def products(gradient: Array, nodes: Array, parts: Array) -> Array:
    """`(K, M, 1, 3, J)` of gradients `(K, 3, M)` and parts of the step `(K, J, M)`."""
    found: Array = np.einsum("knm,kjm->kmnj", gradient, parts)
    assert nodes.shape == gradient.shape
    return found[:, :, None]


def pieces(count: int) -> tuple[Array, Array]:
    """Start, middle and end `(K, 3, M)` and the step's parts: itself, two thirds, one third."""
    points = curve(np.linspace(0, 1, count + 1))
    start, end = points[:-1], points[1:]
    step = end - start
    return np.stack([start, (start + end) / 2, end], axis=1), np.stack(
        [step, step / 1.5, step / 3], 1
    )


def test_of_a_quadratic_the_total_is_exact_however_coarse_the_path() -> None:
    def loss(x: Array) -> float:
        return float(x @ HESSIAN @ x / 2 + LINEAR @ x)

    change = loss(curve(np.array(1.0))) - loss(curve(np.array(0.0)))
    for count in (1, 2, 7):
        nodes, parts = pieces(count)
        found = path_change(products(nodes @ HESSIAN + LINEAR, nodes, parts))
        for rule in (found.simpson, found.trapezoid):
            assert rule.shape == (3, 1, 3)
            assert rule[:, 0, 0].sum() == pytest.approx(change, abs=1e-12)
            np.testing.assert_allclose(rule[..., 0] * 2 / 3, rule[..., 1], atol=1e-13)
            np.testing.assert_allclose(rule[..., 1] + rule[..., 2], rule[..., 0], atol=1e-13)


def test_the_split_is_the_integrals_over_the_real_path() -> None:
    """By ordinary integration of g_m(θ(t)) θ_m'(t) over t, on a fine grid in t."""
    t = np.linspace(0, 1, 200_001)
    theta = curve(t)
    speed = np.stack([-3 * np.sin(3 * t), 2 * np.cos(2 * t), 3 * t**2], axis=-1)
    split = np.trapezoid((theta @ HESSIAN + LINEAR) * speed, t, axis=0)
    errors = []
    for count in (1, 64, 128):
        nodes, parts = pieces(count)
        found = path_change(products(nodes @ HESSIAN + LINEAR, nodes, parts)).simpson[:, 0, 0]
        errors.append(np.abs(found - split).max())
    assert errors[0] > 0.1, "the straight line splits otherwise"
    assert errors[1] < 2e-3
    assert errors[2] == pytest.approx(errors[1] / 4, rel=0.05)  # the pieces are straight: order 2


def test_simpsons_rule_is_exact_for_a_quartic_and_the_trapezoid_is_not() -> None:
    nodes, parts = pieces(1)
    found = path_change(products(4 * nodes**3, nodes, parts))
    change = (curve(np.array(1.0)) ** 4 - curve(np.array(0.0)) ** 4).sum()
    assert found.simpson[..., 0].sum() == pytest.approx(change, abs=1e-12)
    assert abs(found.trapezoid[..., 0].sum() - change) > 0.1


@pytest.mark.parametrize("shape", [(2, 3, 1, 3), (2, 3, 1, 2, 4)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="belongs"):
        path_change(np.zeros(shape))
