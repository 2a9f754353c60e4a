"""The reach of a local model, on losses whose expansion is known."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from geomix.measures.reach import FLOOR, GRID, gradient_reach, reach, taylor

T = np.array(GRID)


def largest(bound: float) -> float:
    return max((t for t in GRID if t <= bound), default=0.0)


@given(st.floats(0.1, 10), st.floats(0.05, 50))
def test_a_cubic_has_the_reach_of_its_closed_form(a: float, c: float) -> None:
    """½at² + ct³: the Hessian's model misses ct³, a tenth of the loss at t = a/(18c)."""
    loss, gradient = a / (18 * c), a / (27 * c)
    assume(min(abs(np.log(T / loss)).min(), abs(np.log(T / gradient)).min()) > 1e-9)
    assert reach(taylor(0, a), a * T**2 / 2 + c * T**3).t == largest(loss)
    slope, line = a * T + 3 * c * T**2, a * T
    assert gradient_reach(abs(slope - line).tolist(), slope.tolist()).t == largest(gradient)


def test_a_quadratic_holds_everywhere() -> None:
    found = reach(taylor(-0.3, 2.0), -0.3 * T + T**2)
    assert (found.t, isnan(found.fails), found.text) == (1.0, True, "1")
    assert gradient_reach([0.0] * len(T), list(GRID)).t == 1.0


def test_a_model_that_fails_at_once_has_a_bound_and_no_reach() -> None:
    found = reach(taylor(1.0), 2 * T)
    assert (found.t, found.fails, found.text) == (0.0, 0.001, "< 0.001")
    assert gradient_reach([1.0], [1.0]).text == "< 0.001"


def test_a_model_that_is_right_again_by_chance_has_not_come_that_far() -> None:
    model = taylor(1.0)
    model[12] = 1.13 * T[12]  # 13 % off at 0.2, right at 0.3 and on
    found = reach(model, T)
    assert (found.t, found.fails) == (0.15, 0.2)
    errors = [0.0] * 12 + [0.13] + [0.0] * 4
    assert gradient_reach(errors, [1.0] * 17).t == 0.15


def test_the_largest_change_so_far_judges_where_the_change_crosses_0() -> None:
    """t − 2t² is 0 at 0.5 but was 1/8 before: an error of 0.01 is small there, not infinite."""
    truth = T - 2 * T**2
    model = truth.copy()
    model[GRID.index(0.5)] += 0.01
    assert reach(model, truth).t == 1.0
    model[GRID.index(0.5)] += 0.01
    assert reach(model, truth).fails == 0.5


def test_points_at_which_nothing_changed_are_skipped() -> None:
    """With a loss of 1, changes below 1e-4 decide nothing, however wrong the model is there."""
    truth = T**2 / 2
    found = reach(truth + 1e-6, truth, floor=FLOOR * 1.0)
    assert found.skipped == (0.001, 0.002, 0.003, 0.005, 0.007, 0.01)
    assert found.t == 1.0
    failing = reach(2 * truth, truth, floor=FLOOR)
    assert (failing.t, failing.text) == (0.0, "< 0.02")


def test_a_direction_that_changes_nothing_decides_nothing() -> None:
    found = reach(taylor(1.0), 1e-6 * T, floor=FLOOR)
    assert (found.determined, found.text, found.skipped) == (False, "undetermined", GRID)
    assert not reach(taylor(0.0), 0 * T).determined
    assert not gradient_reach([0.0] * 17, [0.0] * 17).determined


def test_a_loss_that_is_no_number_is_no_agreement() -> None:
    truth = T.copy()
    truth[-1] = float("inf")
    assert reach(taylor(1.0), truth).t == 0.7
    truth[-1] = float("nan")
    assert reach(taylor(1.0), truth).t == 0.7


def test_what_does_not_fit_together_is_an_error() -> None:
    with pytest.raises(ValueError, match="one each"):
        reach([0.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="ascending"):
        reach([0.0, 0.0], [0.0, 1.0], grid=(1.0, 0.5))
    with pytest.raises(ValueError, match="holds at all"):
        gradient_reach([0.0], [1.0])
    with pytest.raises(ValueError, match="one each"):
        gradient_reach([0.0], [])
