"""The learning rate's shape."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from geomix.config.training import TrainConfig
from geomix.training.optimiser import learning_rate, make_optimiser, second_moments


def rates(steps: int, **keys: Any) -> list[float]:
    config = TrainConfig.model_validate({"lr": 2.0, **keys})
    return [learning_rate(step, steps, config) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_the_warm_up_rises_evenly_from_above_zero_to_the_peak(schedule: str) -> None:
    """A quarter of 8 steps: 1/3 and 2/3 of the peak, then the peak itself."""
    found = rates(8, schedule=schedule, warmup=0.25)
    assert found[:3] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert max(found) == 2.0


def test_cosine_by_hand() -> None:
    """No warm-up, 4 steps: half of 1 + cos(0°, 45°, 90°, 135°), times the peak."""
    root = math.sqrt(0.5)
    assert rates(4, schedule="cosine", warmup=0) == pytest.approx([2, 1 + root, 1, 1 - root])


def test_cosine_ends_near_zero_and_never_rises() -> None:
    found = rates(200, schedule="cosine", warmup=0.1)
    assert found[20:] == sorted(found[20:], reverse=True)
    assert 0 < found[-1] < 2e-3


def test_linear_and_constant_by_hand() -> None:
    assert rates(4, schedule="linear", warmup=0) == pytest.approx([2, 1.5, 1, 0.5])
    assert rates(5, schedule="constant", warmup=0.2) == pytest.approx([1, 2, 2, 2, 2])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_short_stages_move_at_every_step(steps: int, warmup: float, schedule: str) -> None:
    assert all(0 < rate <= 2 for rate in rates(steps, warmup=warmup, schedule=schedule))


def test_the_optimiser_is_adamw_as_configured() -> None:
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    config = TrainConfig(lr=0.5, betas=(0.8, 0.9), weight_decay=0.1)
    optimiser = make_optimiser(model, config)
    (group,) = optimiser.param_groups
    assert group["params"] == [model.weight]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.8, 0.9), 0.1)
    model.weight.grad = torch.tensor([[3.0, -2.0]])
    optimiser.step()
    assert list(second_moments(model, optimiser)) == ["weight"]
    # one squared gradient is its own mean, whatever the decay; then 0.9 and 1 parts of 1.9
    squares = torch.tensor([[9.0, 4.0]])
    torch.testing.assert_close(second_moments(model, optimiser)["weight"], squares)
    model.weight.grad = torch.tensor([[1.0, 0.0]])
    optimiser.step()
    expected = (0.9 * squares + torch.tensor([[1.0, 0.0]])) / 1.9
    torch.testing.assert_close(second_moments(model, optimiser)["weight"], expected)


def test_wsd_is_stable_and_then_falls_linearly_to_zero() -> None:
    found = rates(20, schedule="wsd", warmup=0.1, decay=0.25, lr=1.0)
    assert found[:2] == pytest.approx([1 / 3, 2 / 3])
    assert found[2:16] == [1.0] * 14
    assert found[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_wsd_that_falls_over_all_steps_begins_to_fall_at_the_peak() -> None:
    found = rates(10, schedule="wsd", warmup=0.2, decay=1.0, lr=1.0)
    assert found[2:] == pytest.approx([left / 8 for left in range(8, 0, -1)])
