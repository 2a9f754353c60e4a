"""Critical sharpness and the tolerance step, on losses along a line that have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix.measures.critical_sharpness import MOST, critical_step, tolerance_step


def quadratic(slope: float, curvature: float) -> Callable[[float], float]:
    return lambda eta: slope * eta + curvature * eta**2 / 2


@given(st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_a_quadratics_sharpness_is_its_closed_form(size: float, curvature: float) -> None:
    """λ_c = dᵀHd / (−g·d)."""
    found = critical_step(quadratic(-size, curvature), -size, tolerance=1e-6)
    expected = curvature / size
    if 2 / expected < MOST / 2:
        assert found.sharpness == pytest.approx(expected, rel=1e-5)
    elif 2 / expected > MOST:
        assert found.state == "none"


def test_a_longer_direction_has_a_smaller_step() -> None:
    plain = critical_step(quadratic(-1.0, 0.7), -1.0, tolerance=1e-6).step
    for scale in (0.25, 3.0):
        loss = quadratic(-scale, 0.7 * scale**2)
        scaled = critical_step(loss, -scale, tolerance=1e-6).step
        assert scaled == pytest.approx(plain / scale, rel=1e-5)


def test_a_step_that_raises_the_loss_at_once_is_a_conflict() -> None:
    for slope in (0.5, 0.0):
        found = critical_step(quadratic(slope, 1.0), slope)
        assert (found.step, found.state, found.text) == (0.0, "conflict", "undefined (conflict)")
        assert isnan(found.sharpness)


def test_a_loss_that_never_rises_has_none_up_to_the_most() -> None:
    found = critical_step(quadratic(-1.0, -0.1), -1.0)
    assert (found.state, found.text) == ("none", "none up to 1024")
    assert isnan(found.step)
    assert isnan(found.sharpness)


def test_the_search_needs_few_losses() -> None:
    seen: list[float] = []
    loss = quadratic(-1.0, 0.7)

    def change(eta: float) -> float:
        seen.append(eta)
        return loss(eta)

    found = critical_step(change, -1.0)
    assert found.step == pytest.approx(2 / 0.7, rel=0.05)
    assert len(seen) == len(set(seen)) <= 7


def test_the_tolerance_step_of_a_quadratic() -> None:
    found = tolerance_step(quadratic(0.0, 2.0), epsilon=0.01, tolerance=1e-6)
    assert found.step == pytest.approx(sqrt(0.01), rel=1e-5)
    found = tolerance_step(quadratic(0.5, 0.0), epsilon=0.01, tolerance=1e-6)
    assert found.step == pytest.approx(0.02, rel=1e-5)
    assert tolerance_step(quadratic(-1.0, 0.0)).state == "none"


def test_a_loss_that_is_no_number_has_risen() -> None:
    found = critical_step(lambda eta: float("nan") if eta > 3 else -eta, -1.0, tolerance=1e-3)
    assert found.step == pytest.approx(3, rel=1e-3)


def test_a_rise_at_the_smallest_step_is_not_resolved() -> None:
    found = critical_step(lambda _: 1e-9, -1e-12)
    assert (found.state, found.text) == ("unresolved", "below 1e-06")
