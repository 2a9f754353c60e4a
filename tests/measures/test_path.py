"""The change of a loss along a path, where it is known in closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.measures.line_integral import coarser_trapezoid, moved, path_change

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


def paired(points: Array, gradient: Array) -> list[Array | None]:
    """For each piece the line over it and the one before: `(M, 1, 2, 1)` products at its ends."""
    wide = points[2:] - points[:-2]
    ends = np.stack([gradient[:-2], gradient[2:]], axis=1)  # (K - 1, 2, M)
    return [None, *np.einsum("knm,km->kmn", ends, wide)[:, :, None, :, None]]


def coarser(count: int, power: int) -> tuple[Array, Array]:
    """Return the coarser sum of Σ x^power along the curve, and every other point's trapezoid."""
    points = curve(np.linspace(0, 1, count + 1))
    nodes, parts = pieces(count)
    found = coarser_trapezoid(
        products(power * nodes ** (power - 1), nodes, parts[:, :1]),
        paired(points, power * points ** (power - 1)),
    )
    kept = points[::2] if count % 2 == 0 else np.concatenate([points[:-1:2], points[-1:]])
    expected = np.trapezoid(power * kept ** (power - 1), kept, axis=0)
    return found[:, 0, 0], expected


@pytest.mark.parametrize("count", [2, 6, 7])
def test_the_coarser_sum_is_that_of_every_other_point(count: int) -> None:
    """Independent: numpy's trapezoid rule, one parameter at a time; an odd piece goes alone."""
    found, expected = coarser(count, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_coarser_total_of_a_quadratic_is_exact_and_its_split_is_not() -> None:
    points = curve(np.linspace(0, 1, 9))
    gradient = points @ HESSIAN + LINEAR
    nodes, parts = pieces(8)
    made = products(nodes @ HESSIAN + LINEAR, nodes, parts[:, :1])
    rough, fine = coarser_trapezoid(made, paired(points, gradient)), path_change(made).trapezoid
    assert rough.sum() == pytest.approx(fine.sum(), abs=1e-12)
    assert moved(fine, rough) > 0.01
    assert np.array_equal(coarser_trapezoid(made, [None] * 8), fine)


def test_what_moved_is_a_share_of_all_that_is_split() -> None:
    assert moved(np.array([3.0, -1.0]), np.array([2.0, 0.0])) == pytest.approx(0.5)
    assert np.isnan(moved(np.zeros(2), np.zeros(2)))


@pytest.mark.parametrize(("rule", "power", "order"), [("trapezoid", 3, 2), ("simpson", 5, 4)])
def test_the_residual_of_the_total_falls_at_the_rules_order(
    rule: str, power: int, order: int
) -> None:
    """A cubic under the trapezoid rule, a quintic under Simpson's, along the bent path."""
    change = (curve(np.array(1.0)) ** power - curve(np.array(0.0)) ** power).sum()
    errors = []
    for count in (16, 32, 64):
        nodes, parts = pieces(count)
        found = path_change(products(power * nodes ** (power - 1), nodes, parts[:, :1]))
        errors.append(abs(getattr(found, rule).sum() - change))
    for one, half in pairwise(errors):
        assert np.log2(one / half) == pytest.approx(order, abs=0.15)
