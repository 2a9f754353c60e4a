from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix.measures.verdict import verdict


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.06, 0.20, "supported"),  # above the smallest effect
        (0.01, 0.20, "supported"),  # above 0, and it may be as large as the smallest effect
        (0.005, 0.011, "negligible"),  # its sign is known, its size is none of interest
        (-0.04, 0.04, "negligible"),
        (-0.22, 0.03, "refuted"),  # in the claimed direction there is nothing of interest
        (-0.30, -0.10, "refuted"),
        (-0.10, 0.22, "undetermined"),
        (-0.05, 0.04, "refuted"),  # the bound itself is of interest
        (0.00, 0.05, "undetermined"),
    ],
)
def test_the_rule_in_its_order(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, smallest=0.05, pairs=10, planned=10) == expected


def test_too_few_pairs_decide_nothing() -> None:
    assert verdict(0.5, 0.6, smallest=0.05, pairs=9, planned=10) == "undetermined"
    assert verdict(0.5, 0.6, smallest=0.05, pairs=10, planned=10) == "supported"


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.01, 1))
def test_two_arms_swapped_are_negligible_together_and_never_both_supported(
    middle: float, half: float, smallest: float
) -> None:
    one = verdict(middle - half, middle + half, smallest=smallest, pairs=3, planned=3)
    other = verdict(-middle - half, -middle + half, smallest=smallest, pairs=3, planned=3)
    assert (one == "negligible") == (other == "negligible")
    assert not (one == other == "supported")


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_wider_interval_never_turns_a_verdict_around(
    middle: float, half: float, more: float
) -> None:
    narrow = verdict(middle - half, middle + half, smallest=0.05, pairs=3, planned=3)
    wide = verdict(middle - half - more, middle + half + more, smallest=0.05, pairs=3, planned=3)
    assert (narrow, wide) not in {("supported", "refuted"), ("refuted", "supported")}


def test_what_is_no_interval_or_no_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="above 0"):
        verdict(0, 1, smallest=0, pairs=3, planned=3)
    with pytest.raises(ValueError, match="no interval"):
        verdict(float("nan"), 1, smallest=0.1, pairs=3, planned=3)
