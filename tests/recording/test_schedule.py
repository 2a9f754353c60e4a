"""Recorded steps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from geomix.config.schedule import log_spaced, parse, steps_to_record


@pytest.mark.parametrize(
    ("at", "stage", "steps", "expected"),
    [
        (["boundaries"], 0, 10, {0, 10}),
        (["boundaries"], 1, 10, {10}),
        (["boundaries"], 0, 0, {0}),
        (["boundaries"], 1, 0, set()),
        (["log:4"], 0, 8, {1, 2, 4, 8}),
        (["log:4"], 1, 8, {1, 2, 4, 8}),
        (["log:11"], 0, 1024, {2**i for i in range(11)}),
        (["log:1"], 0, 8, {1}),
        (["log:9"], 0, 5, {1, 2, 3, 4, 5}),
        (["log:3"], 0, 0, set()),
        (["every:3"], 0, 10, {0, 3, 6, 9}),
        (["every:3"], 1, 10, {3, 6, 9}),
        ([0, 5, 11], 0, 10, {0, 5}),
        ([0, 5, 11], 2, 10, {5}),
        (["boundaries", "log:2", "every:4", 7], 0, 9, {0, 1, 4, 7, 8, 9}),
        ([], 0, 10, set()),
    ],
)
def test_steps(at: list[str | int], stage: int, steps: int, expected: set[int]) -> None:
    assert steps_to_record(at, stage, steps) == expected


def test_log_spacing_is_distinct_increasing_and_reaches_both_ends() -> None:
    for steps in range(2, 300):
        for count in range(2, 40):
            points = log_spaced(count, steps)
            assert len(points) == min(count, steps)
            assert points[0] == 1
            assert points[-1] == steps
            assert all(a < b for a, b in pairwise(points))


@pytest.mark.parametrize(
    "item", ["lgo:8", "log:0", "log:", "log:-1", "log:2.5", "every", "boundary", "3", -1, True, 2.0]
)
def test_malformed_item_is_named(item: str | int) -> None:
    with pytest.raises(ValueError, match=r"^record\.at: ") as error:
        parse(["boundaries", item])
    assert repr(item) in str(error.value)
    assert "\n" not in str(error.value)
