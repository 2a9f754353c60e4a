"""The recorder as an observer of training."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geomix.data.example import IGNORED, TokenisedExample
from geomix.gradients.capture import CaptureName
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot, write_snapshot
from geomix.snapshots.schema import Snapshot
from geomix.training.observer import TrainingEvent

Make = Callable[[], Any]
Examples = Callable[[int, int], list[TokenisedExample]]
MakeMoment = Callable[..., TrainingEvent]


def recorder(folder: Path, probes: dict[str, list[TokenisedExample]], **changes: Any) -> Recorder:
    options: dict[str, Any] = {"at": ["boundaries"], "reduction": "token", "batch_size": 3}
    return Recorder(folder, probes, pad_id=0, **{**options, **changes})


def arrays(snapshot: Snapshot) -> list[Any]:
    """Every number of a snapshot."""
    found: list[Any] = [snapshot.inner_products, snapshot.sizes]
    for record in snapshot.probes.values():
        found += [getattr(record, field.name) for field in dataclasses.fields(record)]
    return found


def trained(model: nn.Module, data: list[TokenisedExample], observer: Recorder | None) -> Tensor:
    """Weights after six AdamW steps with dropout, one flat tensor."""
    torch.manual_seed(7)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(7):
        if observer:
            observer.observe(TrainingEvent(model, 0, "kvr", step, 6, 0, None))
        if step < 6:
            batches = batches_of(data, "example", 4, 0, torch.device("cpu"))
            for _ in backward_over(plain_forward(model), batches):
                pass
            optimiser.step()
            optimiser.zero_grad()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
def test_training_is_the_same_with_and_without_it(
    capture: CaptureName, tmp_path: Path, gpt2: Make, examples: Examples
) -> None:
    probes = {"d_a": examples(5, 1), "d_b": examples(4, 2)}
    observer = recorder(tmp_path, probes, at=["boundaries", "log:3"], capture=capture)
    alone, watched = (
        trained(gpt2(), examples(6, 0), None),
        trained(gpt2(), examples(6, 0), observer),
    )
    assert torch.equal(alone, watched)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"stage0-step{step:06d}.h5" for step in (0, 1, 2, 6)]
    losses = [read_snapshot(path).probes["d_a"].loss.mean() for path in sorted(tmp_path.iterdir())]
    assert len(set(losses)) == 4  # the model that is recorded is the one being trained


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
def test_the_model_and_every_random_state_are_left_as_found(
    capture: CaptureName, tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model = gpt2()
    model.transformer.h[1].eval()  # a frozen layer that the user keeps in evaluation mode
    model.transformer.ln_f.register_forward_pre_hook(_draw_random_numbers)
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    with torch.no_grad():  # as an evaluation loop may call it
        recorder(tmp_path, {"d_a": examples(5, 1)}, capture=capture).observe(moment(model))
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state()) == states[2]


def test_gradients_are_cleared_when_recording_fails(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model = gpt2()
    model.transformer.h[2].mlp.register_forward_hook(_fail_on_the_second_call())
    with pytest.raises(KeyError):
        recorder(tmp_path, {"d_a": examples(6, 1)}).observe(moment(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert list(tmp_path.iterdir()) == []


def _draw_random_numbers(*_: Any) -> None:
    """As some routers do, in evaluation mode too."""
    torch.rand(3)


def _fail_on_the_second_call() -> Callable[..., None]:
    calls = []

    def hook(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError

    return hook


def test_held_gradients_are_refused(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model = gpt2()
    model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)
    with pytest.raises(RuntimeError, match="holds a gradient"):
        recorder(tmp_path, {"d_a": examples(2, 1)}).observe(moment(model))


def test_the_file_is_what_was_recorded(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    probes = {"d_a": examples(5, 1), "d_b": examples(4, 2)}
    observer = recorder(tmp_path, probes)
    now = moment(llama(), stage=1, step=4)
    observer.observe(now)
    snapshot, read = observer.snapshot(now), read_snapshot(tmp_path / "stage1-step000004.h5")
    assert all(np.array_equal(a, b) for a, b in zip(arrays(snapshot), arrays(read), strict=True))
    assert read.parameters == tuple(name for name, _ in now.model.named_parameters())
    assert read.sets == ("d_a", "d_b")
    assert read.tied_head
    assert (read.stage, read.step, read.steps, read.layers) == (1, 4, 4, 2)


def test_rows_belong_to_the_tokens_that_they_say(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    data, model = examples(7, 1), llama()
    record = recorder(tmp_path, {"d_a": data}).snapshot(moment(model)).probes["d_a"]
    assert record.activations is not None
    for i, example in enumerate(data):
        mine = slice(record.offsets[i], record.offsets[i + 1])
        expected = [t for t, label in enumerate(example.labels) if label != IGNORED]
        assert record.positions[mine].tolist() == [t - 1 for t in expected]
        assert record.targets[mine].tolist() == [example.ids[t] for t in expected]
        inputs = model.model.embed_tokens(torch.tensor(example.ids)).detach()
        assert np.array_equal(record.activations[mine, 0], inputs[record.positions[mine]])


def test_both_captures_record_the_same_numbers(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    probes, model = {"d_a": examples(5, 1), "d_b": examples(4, 2)}, gpt2()
    ours, theirs = (
        arrays(recorder(tmp_path, probes, capture=capture).snapshot(moment(model)))
        for capture in ("nnsight", "hooks")
    )
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_verdict_is_that_of_greedy_decoding(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    """Exact is compared with a token-by-token argmax decode, which sees no target token."""
    model = llama().eval()
    wrong = examples(4, 3)
    right = []
    for example in wrong:
        ids = list(example.ids[: example.target_start])
        for _ in range(example.target_tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        labels = (IGNORED,) * example.target_start + tuple(ids[example.target_start :])
        right.append(TokenisedExample(tuple(ids), labels, example.text))
    probes = {"right": right, "wrong": wrong}
    found = recorder(tmp_path, probes).snapshot(moment(model)).probes
    assert found["right"].exact.all()
    assert not found["wrong"].exact.all()


def test_activations_may_be_left_out(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model, probes = gpt2(), {"d_a": examples(5, 1)}
    whole = recorder(tmp_path, probes).snapshot(moment(model))
    bare = recorder(tmp_path, probes, activations=0).snapshot(moment(model))
    assert bare.probes["d_a"].activations is None
    assert bare.probes["d_a"].gradients is None
    assert np.array_equal(bare.inner_products, whole.inner_products)


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_the_first_examples_keep_their_activations(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment, kept: int
) -> None:
    """Batches hold 2 of the 5 examples, so the last one that is kept falls inside and between."""
    model, probes = gpt2(), {"d_a": examples(5, 1)}
    whole = recorder(tmp_path, probes, batch_size=2).snapshot(moment(model)).probes["d_a"]
    some = recorder(tmp_path, probes, batch_size=2, activations=kept)
    write_snapshot(tmp_path / "one.h5", some.snapshot(moment(model)))
    part = read_snapshot(tmp_path / "one.h5").probes["d_a"]
    assert whole.activations is not None
    assert whole.gradients is not None
    assert part.activations is not None
    assert part.gradients is not None
    rows = whole.offsets[kept]
    assert np.array_equal(part.activations, whole.activations[:rows])
    assert np.array_equal(part.gradients, whole.gradients[:rows])
    assert np.array_equal(part.positions, whole.positions)


def test_frozen_parameters_are_neither_covered_nor_missed(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model, probes = gpt2(), {"d_a": examples(5, 1)}
    whole = recorder(tmp_path, probes).snapshot(moment(model))
    model.transformer.wte.weight.requires_grad_(False)
    model.transformer.wpe.weight.requires_grad_(False)
    frozen = recorder(tmp_path, probes).snapshot(moment(model))
    assert frozen.parameters == whole.parameters[2:]
    assert frozen.trainable == len(frozen.parameters)
    assert np.array_equal(frozen.inner_products, whole.inner_products[2:])
    assert model.transformer.wte.weight.requires_grad is False


def test_a_parameter_that_the_loss_does_not_reach_counts_as_zero(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    model = gpt2()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    snapshot = recorder(tmp_path, {"d_a": examples(2, 1)}).snapshot(moment(model))
    assert np.array_equal(
        snapshot.inner_products[snapshot.parameters.index("unused")], np.zeros((1, 1))
    )


def test_autocast_is_recorded_as_trained(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    model, probes = llama(), {"d_a": examples(5, 1)}
    full = recorder(tmp_path, probes).snapshot(moment(model))
    mixed = recorder(tmp_path, probes, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    half = mixed.snapshot(moment(model))
    assert not np.array_equal(half.probes["d_a"].loss, full.probes["d_a"].loss)
    np.testing.assert_allclose(half.probes["d_a"].loss, full.probes["d_a"].loss, rtol=0.05)
    assert half.probes["d_a"].gradients is not None


@pytest.mark.parametrize("name", ["", "a/b", "."])
def test_names_that_cannot_be_groups(name: str, tmp_path: Path, examples: Examples) -> None:
    with pytest.raises(ValueError, match="not a name"):
        recorder(tmp_path, {name: examples(1, 0)})


def test_empty_probe_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'d_b' is empty"):
        recorder(tmp_path, {"d_b": []})
