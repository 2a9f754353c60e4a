"""An arm's model at its checkpoints, and its sets whole, against transformers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import geomix
from geomix.config.names import HELD_OUT, MIXED, REPLAY
from geomix.experiments.precise import PreciseArm
from geomix.gradients.products import SetObjective
from geomix.gradients.vectors import dot, minus, norm
from geomix.util.errors import UserError


@pytest.fixture(scope="module")
def mixed(small_arms: geomix.Run) -> PreciseArm:
    return PreciseArm.open(small_arms.arm("mixed"))


def saved(arm: PreciseArm, name: str, model: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file."""
    first, second = sorted((arm.arm.path / "stages").iterdir())
    folder = {
        "0": model,
        "A": first / "checkpoints" / "final",
        "A+1": second / "weights" / "step-000001",
        "B": second / "checkpoints" / "final",
    }[name]
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return found


@pytest.mark.parametrize("name", ["0", "A", "A+1", "B"])
def test_weights_are_those_of_the_files(mixed: PreciseArm, tiny_model: Path, name: str) -> None:
    expected = saved(mixed, name, tiny_model)
    found = mixed.weights(name)
    assert set(found) == set(expected)
    assert all(torch.equal(found[n], expected[n]) for n in found)
    assert mixed.checkpoints == ("0", "0+1", "0+2", "A", "A+1", "A+2", "B")
    with pytest.raises(UserError, match=r"no weights of 'A\+9'; there are 0, 0\+1"):
        mixed.weights("A+9")


def test_moves_write_nothing_in_place(mixed: PreciseArm) -> None:
    mixed.move_to("A")
    start, end = mixed.here(), mixed.weights("B")
    kept = {n: t.clone() for n, t in start.items()}
    way = minus(end, start)
    mixed.move_to(start, way, 0.25)
    quarter = mixed.here()
    assert all(torch.allclose(quarter[n], kept[n] + 0.25 * way[n]) for n in kept)
    assert all(torch.equal(start[n], kept[n]) for n in kept)
    mixed.move_to("B")
    assert all(torch.equal(t, end[n]) for n, t in mixed.here().items())


def test_a_moved_model_is_the_model_of_the_file(mixed: PreciseArm, tiny_model: Path) -> None:
    """Tied weights included: loss and gradient of D_A by transformers, example by example."""
    objective = mixed.objective("D_A")
    for name in ("A", "B"):
        mixed.move_to(name)
        network = AutoModelForCausalLM.from_pretrained(tiny_model)
        network.load_state_dict(saved(mixed, name, tiny_model), strict=False)
        data = mixed.stages[0].own
        total = torch.zeros(())
        for e in data:
            labels = torch.tensor([e.labels])
            total = total + network(input_ids=torch.tensor([e.ids]), labels=labels).loss / len(data)
        torch.autograd.backward(total)
        expected = {n: p.grad for n, p in network.named_parameters()}
        loss, gradient = objective.loss_and_gradient()
        assert loss == pytest.approx(total.item(), rel=1e-5)
        assert norm(minus(gradient, expected)) < 1e-4 * norm(expected)


def test_sets_are_whole_and_have_their_stages_reduction(mixed: PreciseArm) -> None:
    """Two probes were recorded of each; stage 1 has example loss, stage 2 token loss."""
    found = {name: mixed.objective(name) for name in mixed.sets}
    counts = {name: (o.facts, o.of, o.reduction) for name, o in found.items()}
    assert counts == {
        "D_A": (6, 6, "example"),
        "D_B": (4, 4, "token"),
        MIXED: (6, 6, "example"),
        REPLAY: (2, 2, "token"),
        HELD_OUT: (6, 6, "example"),
    }
    replayed = found[REPLAY].batches[0]
    assert {tuple(e.ids) for e in mixed.stages[1].tokenised[REPLAY]} < {
        tuple(e.ids) for e in mixed.stages[0].own
    }
    assert replayed.examples == 2
    few = mixed.objective("D_A", facts=4)
    assert (few.counted, found["D_A"].counted) == ("4 of 6 facts", "6 facts")
    assert float(few.batches[0].weights.sum()) == pytest.approx(1)
    assert mixed.objective("D_A", stage=1).reduction == "token"
    with pytest.raises(UserError, match="no set 'D_C'; there are D_A, D_B, D_M, replay, held-out"):
        mixed.objective("D_C")


def test_second_derivatives_at_a_checkpoint(mixed: PreciseArm) -> None:
    """Symmetric, and equal to differences of gradients, in float32 through tied weights."""
    mixed.move_to("A")
    objective: SetObjective = mixed.objective("D_A")
    u, v = minus(mixed.weights("B"), mixed.here()), minus(mixed.weights("0"), mixed.here())
    hu, hv = objective.hessian_product(u), objective.hessian_product(v)
    assert dot(u, hv) == pytest.approx(dot(v, hu), abs=1e-5 * norm(u) * norm(hv))
    here, step = mixed.here(), 1e-2
    ends = []
    for sign in (1, -1):
        mixed.move_to(here, u, sign * step)
        ends.append(objective.gradient())
    mixed.move_to(here)
    found = {n: (ends[0][n] - ends[1][n]) / (2 * step) for n in hu}
    assert norm(minus(found, hu)) < 0.02 * norm(hu)
    with objective.kept() as products:
        assert norm(minus(products.hessian(u), hu)) <= 1e-6 * norm(hu)


def test_frozen_parameters_have_no_derivatives(tmp_path: Path, tiny_model: Path) -> None:
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3, "trainable": ["layers:2"]},
        "stages": [{"data": {"source": "kvr", "limit": 3}, "stop": {"epochs": 1}}],
    }
    run = geomix.train(config, "evaluate.epochs=0", out=tmp_path / "frozen")
    arm = PreciseArm.open(run)
    assert arm.parameters
    assert all(".layers.1." in name for name in arm.parameters)
    assert set(arm.weights("A")) == set(arm.objective("D_A").gradient()) == set(arm.parameters)


def test_adapters_are_rejected(tmp_path: Path, tiny_model: Path) -> None:
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3, "lora": {"rank": 2}},
        "stages": [{"data": {"source": "kvr", "limit": 3}, "stop": {"epochs": 1}}],
    }
    run = geomix.train(config, "evaluate.epochs=0", out=tmp_path / "adapters")
    with pytest.raises(UserError, match="stage 1 trained adapters"):
        PreciseArm.open(run)
