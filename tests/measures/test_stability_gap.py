from __future__ import annotations

import pytest

from geomix.measures.stability_gap import stability_gap, worst_case


def test_a_dip_by_hand() -> None:
    """100 → 40 after 2 steps, back to 70 after 6; the shortfall's trapezoids are 60 + 180."""
    gap = stability_gap([0, 2, 6, 7], [100.0, 40.0, 70.0, 60.0])
    assert (gap.depth, gap.at, gap.recovered) == (60, 2, 20)
    assert gap.area == 2 * 30 + 4 * 45 + 1 * 35
    assert (gap.fall, gap.rise, gap.evaluations, gap.widest) == (60, 30, 4, 4)


def test_constants_have_no_dip() -> None:
    gap = stability_gap([0, 1, 5], [7.0, 7.0, 7.0])
    assert (gap.depth, gap.recovered, gap.area, gap.fall, gap.rise) == (0, 0, 0, 0, 0)


def test_a_rise_is_no_shortfall() -> None:
    gap = stability_gap([0, 1, 5], [1.0, 2.0, 3.0])
    assert (gap.depth, gap.area, gap.fall, gap.rise) == (0, 0, 0, 2)


def test_a_window_ends() -> None:
    """9 → 0 lie three evaluations apart; within two the largest fall is 6."""
    scores = [9.0, 6.0, 3.0, 0.0]
    assert stability_gap(range(4), scores, window=2).fall == 6
    assert stability_gap(range(4), scores, window=3).fall == 9


def test_worst_case_accuracy_by_hand() -> None:
    """Stage 3 of three: 90 / 3 + 2 / 3 of the mean of 30 and 60."""
    assert worst_case(90.0, [30.0, 60.0]) == pytest.approx((45.0, 30 + 30))


@pytest.mark.parametrize("steps", [[], [0], [1, 2]])
def test_a_course_has_a_start_and_goes_on(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="begins at step 0"):
        stability_gap(steps, [1.0] * len(steps))
