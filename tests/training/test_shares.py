"""The shares of the sources in Adam's update, against Adam itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from geomix.config.training import TrainConfig
from geomix.data.batch import collate, token_weights
from geomix.data.example import TokenisedExample
from geomix.models.forward import plain_forward
from geomix.models.load import CPU, LoadedModel, load_model
from geomix.models.loss import weighted_loss
from geomix.training.optimiser import make_optimiser
from geomix.training.step import Stepper
from geomix.training.update_shares import Shares

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


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_parts_of_a_step_sum_to_what_the_weights_did(
    loaded: LoadedModel, batches: Batches, decay: float
) -> None:
    """Against the weights before and after, and decay against lr · decay · θ before."""
    model = loaded.model.double().train()
    taking = stepper(model, shares=True, weight_decay=decay)
    assert taking.shares is not None
    for number, batch in enumerate(batches):
        taking.optimiser.param_groups[0]["lr"] = 1e-2 / (1 + number)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        taking.step(batch)
        parts = taking.shares.parts(taking.optimiser)
        assert set(parts) == {"D_A", "D_M"} | ({"decay"} if decay else set())
        for name, parameter in model.named_parameters():
            total = sum(part[name] for part in parts.values())
            torch.testing.assert_close(total, parameter.detach() - before[name], rtol=0, atol=1e-14)
            if decay:
                expected = -1e-2 / (1 + number) * decay * before[name]
                torch.testing.assert_close(parts["decay"][name], expected, rtol=1e-9, atol=1e-15)


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


@pytest.mark.parametrize("clip", [0.3, 1e3])
def test_a_sources_moment_is_that_of_its_own_clipped_gradient(
    loaded: LoadedModel, batches: Batches, clip: float
) -> None:
    """Against each source's part of the mean loss, differentiated by itself; clipped or not."""
    model = loaded.model.double().train()
    taking = stepper(model, shares=True, micro_batch_size=2, clip=clip, betas=(0.8, 0.95))
    assert taking.shares is not None
    names = [name for name, _ in model.named_parameters()]
    moments = {s: [torch.zeros_like(p) for p in model.parameters()] for s in ("D_A", "D_M")}
    for batch in batches:
        everything = [example for examples in batch.values() for example in examples]
        weight = token_weights(everything, "token")[0]
        gradients = {}
        for source, examples in batch.items():
            made = collate(examples, [weight] * len(examples), 2) if examples else None
            loss = weighted_loss(plain_forward(model)(made), made) if made is not None else None
            gradients[source] = torch.autograd.grad(loss, list(model.parameters())) if loss else ()
        whole = [sum(parts) for parts in zip(*filter(None, gradients.values()), strict=True)]
        norm = sum(float(g.square().sum()) for g in whole) ** 0.5
        factor = min(1.0, clip / norm)
        assert (factor < 1) == (clip < 1)
        taking.step(batch)
        for source, held in moments.items():
            for i, name in enumerate(names):
                held[i] *= 0.8
                if gradients[source]:
                    held[i] += 0.2 * factor * gradients[source][i]
                found = taking.shares.moments[f"{source}:{name}"]
                torch.testing.assert_close(found, held[i], rtol=1e-4, atol=1e-9)
