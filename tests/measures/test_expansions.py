"""N*: how many local expansions a change needs, on polynomials."""

from __future__ import annotations

import numpy as np
import pytest

from geomix.measures.expansions import Level, needed, needed_text, nested


def along(finest: int, a: float, b: float, c: float) -> list[Level]:
    """L(t) = at + ½bt² + ct³ from 0 to 1."""
    t = np.arange(finest) / finest
    return nested(a + b * t + 3 * c * t**2, b + 6 * c * t, a + b / 2 + c)


def test_a_pure_cubic_needs_four() -> None:
    """F₂ errs by exactly 1/N² of it: 1, 1/4, 1/16, …; N = 4 is the first within 10 %."""
    levels = along(16, 0, 0, 2.0)
    assert [level.n for level in levels] == [1, 2, 4, 8, 16]
    errors = [level.error_second for level in levels]
    np.testing.assert_allclose(errors, [1 / n**2 for n in (1, 2, 4, 8, 16)], rtol=1e-12)
    assert (needed(levels), needed_text(levels)) == (4, "4")


def test_a_quadratic_needs_one_and_its_first_order_errs_as_1_over_n() -> None:
    levels = along(8, 0.3, 2.0, 0.0)
    assert needed(levels) == 1
    np.testing.assert_allclose([level.second for level in levels], 1.3, rtol=1e-12)
    errors = [level.error_first for level in levels]
    np.testing.assert_allclose(errors, [1 / (1.3 * n) for n in (1, 2, 4, 8)], rtol=1e-12)


def test_the_finest_level_confirms_and_is_no_candidate() -> None:
    levels = along(4, 0, 0, 2.0)
    assert (needed(levels), needed_text(levels)) == (None, "> 2")
    assert needed_text(along(1, 0, 1.0, 0)) == "–"


def test_a_level_that_is_right_by_chance_is_not_confirmed() -> None:
    levels = [Level(n, 0, 0, 1, error) for n, error in ((1, 0.01), (2, 0.5), (4, 0.05), (8, 0.02))]
    assert needed(levels) == 4


def test_a_coarser_level_is_the_expansion_at_fewer_starts() -> None:
    rng = np.random.default_rng(0)
    slopes, curvatures = rng.normal(size=(2, 4))
    levels = nested(slopes, curvatures, 1.0)
    assert levels[1].first == pytest.approx((slopes[0] + slopes[2]) / 2)
    second = levels[1].first + (curvatures[0] + curvatures[2]) / 8
    assert levels[1].second == pytest.approx(second)


def test_no_change_has_no_relative_error_and_odd_numbers_are_refused() -> None:
    assert np.isnan(nested([0.0], [0.0], 0.0)[0].error_second)
    assert needed(nested([0.0, 0.0], [0.0, 0.0], 0.0)) is None
    with pytest.raises(ValueError, match="power of two"):
        nested([0.0] * 3, [0.0] * 3, 1.0)
    with pytest.raises(ValueError, match="power of two"):
        nested([0.0] * 2, [0.0], 1.0)
