"""The shares of the sources in Adam's update, against Adam itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from geomix.config_train import TrainConfig
from geomix.data.example import TokenisedExample
from geomix.model.load import CPU, LoadedModel, load_model
from geomix.train.optimiser import make_optimiser
from geomix.train.shares import Shares
from geomix.train.step import Stepper

Batches = list[dict[str, list[TokenisedExample]]]


@pytest.fixture
def batches(facts: list[TokenisedExample]) -> Batches:
    """The second batch lacks D_M, the third D_A."""
    return [
        {"D_A": facts[:5], "D_M": facts[5:9]},
        {"D_A": facts[2:5], "D_M": []},
        {"D_A": [], "D_M": facts[6:12]},
        {"D_A": facts[1:4], "D_M": facts[7:9]},
    ]


def stepper(model: Any, *, shares: bool, **keys: Any) -> Stepper:
    config = TrainConfig.model_validate({"lr": 1e-2, "weight_decay": 0.1, "clip": 0.3, **keys})
    kept = Shares(dict(model.named_parameters()), config.betas[0]) if shares else None
    return Stepper(model, make_optimiser(model, config), config, 2, CPU, shares=kept)


def test_the_sources_moments_sum_to_adams_and_the_shares_to_one(
    loaded: LoadedModel, batches: Batches
) -> None:
    model = loaded.model.double().train()
    taking = stepper(model, shares=True, micro_batch_size=2)
    assert taking.shares is not None
    for batch in batches:
        found = taking.step(batch).update_shares
        assert found is not None
        assert sum(found.values()) == pytest.approx(1, abs=1e-9)
        for name, parameter in model.named_parameters():
            total = sum(taking.shares.moments[f"{source}:{name}"] for source in batch)
            expected = taking.optimiser.state[parameter]["exp_avg"]
            torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-14)


def test_the_shares_are_projections_of_the_update(loaded: LoadedModel, batches: Batches) -> None:
    """The update, measured: θ before − θ after over the learning rate, without weight decay."""
    model = loaded.model.double().train()
    taking = stepper(model, shares=True, weight_decay=0.0, betas=(0.9, 0.95))
    assert taking.shares is not None
    for number, batch in enumerate(batches, start=1):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        found = taking.step(batch).update_shares
        assert found is not None
        parts = dict.fromkeys(batch, 0.0)
        square = 0.0
        for name, parameter in model.named_parameters():
            move = (before[name] - parameter.detach()) / 1e-2
            square += float((move * move).sum())
            v = taking.optimiser.state[parameter]["exp_avg_sq"] / (1 - 0.95**number)
            for source in batch:
                m = taking.shares.moments[f"{source}:{name}"] / (1 - 0.9**number)
                parts[source] += float((m / (v.sqrt() + 1e-8) * move).sum())
        assert found == pytest.approx({s: value / square for s, value in parts.items()}, rel=1e-6)


@pytest.mark.parametrize("micro", [128, 2])
def test_asking_for_shares_changes_no_bit(tiny_model: Any, batches: Batches, micro: int) -> None:
    ends = []
    for shares in (False, True):
        model = load_model(str(tiny_model), CPU).model.train()
        taking = stepper(model, shares=shares, micro_batch_size=micro)
        results = [taking.step(batch) for batch in batches]
        ends.append((list(model.parameters()), [r.loss for r in results]))
        assert all((r.update_shares is not None) == shares for r in results)
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][0], ends[1][0], strict=True))
