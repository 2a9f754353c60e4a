from __future__ import annotations

import math

import numpy as np
import pytest

from geomix.measures.relearning import cue_count, draw_cues, savings, states, steps_to


def test_steps_are_interpolated_between_evaluations() -> None:
    assert steps_to([0, 2, 6], [0.0, 50.0, 100.0], 75) == 4
    assert steps_to([0, 2, 6], [0.0, 50.0, 100.0], 50) == 2
    assert steps_to([0, 2], [80.0, 90.0], 75) == 0
    assert math.isnan(steps_to([0, 2], [0.0, 50.0], 75))


@pytest.mark.parametrize(
    ("taken", "base", "text"),
    [
        (0, 80, "1.00"),
        (80, 80, "0.00"),
        (20, 80, "0.75"),
        (160, 80, "−1.00"),
        (20, math.nan, "> 0.90"),
        (math.nan, 100, "< −1.00"),
        (math.nan, math.nan, "–"),
        (0, 0, "–"),
    ],
)
def test_savings_by_hand_within_200_steps(taken: float, base: float, text: str) -> None:
    """A criterion that is not reached gives a bound, never the budget in its place."""
    assert str(savings(taken, base, 200)) == text


def test_states_by_hand() -> None:
    """Six facts in four draws; the last two are cues in some of them."""
    start = np.array([False, True, True, True, True, True])
    end = np.array([True, True, False, False, False, False])
    returned = np.array(
        [[1, 0, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1]]
    )
    cues = np.zeros((4, 6), dtype=np.bool_)
    cues[:2, 4] = True  # right again only where it was retrained
    cues[:, 5] = True
    found = states(start, end, returned.astype(np.bool_), cues)
    assert found == ["not learnt", "kept", "hidden", "gone", "gone", "untested"]


@pytest.mark.parametrize(("lost", "count"), [(0, 0), (1, 0), (2, 1), (5, 2), (30, 4), (63, 6)])
def test_cues_are_a_tenth_at_least_four_and_leave_others(lost: int, count: int) -> None:
    assert cue_count(lost) == count


def test_cues_are_drawn_from_the_lost_facts_by_the_seed() -> None:
    lost = np.arange(40) % 2 == 0
    found = draw_cues(lost, 4, 5, [0, 1])
    assert (found.sum(axis=1) == 4).all()
    assert not found[:, ~lost].any()
    assert len({tuple(draw) for draw in found.tolist()}) == 5
    np.testing.assert_array_equal(found, draw_cues(lost, 4, 5, [0, 1]))
    assert (found != draw_cues(lost, 4, 5, [0, 2])).any()
