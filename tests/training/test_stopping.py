"""Stopping rules, counted by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from geomix.config.training import StopConfig
from geomix.training.stopping import Stopping


def stopping(**keys: Any) -> Stopping:
    return Stopping(StopConfig.model_validate(keys))


LOW, HIGH = 0.5e-4, 2e-4


def test_ten_low_losses_end_it_in_a_row_or_not() -> None:
    """The paper's rule: a high loss in between does not begin the count anew."""
    rule = stopping(loss_below=1e-4)
    losses = [LOW] * 9 + [HIGH] * 3 + [LOW]
    assert [rule.step(loss) for loss in losses] == [False] * 12 + [True]


def test_losses_in_a_row_begin_anew_after_a_high_one() -> None:
    rule = stopping(loss_below=1e-4, times=3, consecutive=True)
    losses = [LOW, LOW, HIGH, LOW, LOW, LOW]
    assert [rule.step(loss) for loss in losses] == [False] * 5 + [True]


def test_a_loss_at_the_threshold_is_not_below_it() -> None:
    rule = stopping(loss_below=1e-4, times=1)
    assert not rule.step(1e-4)
    assert rule.step(0.99e-4)


@pytest.mark.parametrize("rule", [{}, {"exact_match": 100}, {"patience": 1}])
def test_no_loss_ends_a_stage_whose_rule_is_another(rule: dict[str, Any]) -> None:
    assert not any(stopping(**rule).step(0.0) for _ in range(100))


@pytest.mark.parametrize(("score", "ends"), [(98.9, False), (99.0, True), (100.0, True)])
def test_an_exact_match_that_is_reached_ends_it(score: float, ends: bool) -> None:
    assert stopping(exact_match=99).evaluation(score) is ends
    assert not stopping(loss_below=1).evaluation(score)


def epochs(rule: Stopping, means: list[float]) -> list[bool]:
    """Two steps an epoch, whose mean is the given one."""
    ends = []
    for mean in means:
        rule.step(mean - 0.25)
        rule.step(mean + 0.25)
        ends.append(rule.epoch())
    return ends


def test_patience_counts_epochs_since_the_lowest_mean_loss() -> None:
    """An equal mean is no progress; a lower one, however little, begins the count anew."""
    means = [3.0, 2.0, 2.0, 2.5, 1.75, 2.25, 1.75, 1.76]
    assert epochs(stopping(patience=3), means) == [False] * 7 + [True]
    assert epochs(stopping(patience=2), means) == [0, 0, 0, 1, 0, 0, 1, 1]
    assert not any(epochs(stopping(), means))


@pytest.mark.parametrize("cut", range(17))
def test_its_state_goes_through_json_at_any_step(cut: int) -> None:
    """Also before the first epoch has ended, when there is no lowest mean yet."""
    keys: dict[str, Any] = {"loss_below": 0.3, "times": 3, "consecutive": True, "patience": 3}
    losses = [0.1, 0.7, 0.2, 0.2, 0.9, 0.7, 0.9, 0.8, 0.1, 0.2, 0.1, 0.9, 1 / 3, 0.1, 0.1, 0.2, 0.3]

    def ends(rule: Stopping, part: list[tuple[int, float]]) -> list[tuple[bool, bool]]:
        return [(rule.step(loss), bool(place % 2) and rule.epoch()) for place, loss in part]

    numbered = list(enumerate(losses))
    whole = stopping(**keys)
    expected = ends(whole, numbered)
    assert any(step for step, _ in expected)
    assert any(epoch for _, epoch in expected)
    first = stopping(**keys)
    found = ends(first, numbered[:cut])
    state = json.loads(json.dumps(first.state(), allow_nan=False))
    second = Stopping(first.rule, **state)
    assert second == first
    found += ends(second, numbered[cut:])
    assert found == expected
    assert second == whole
