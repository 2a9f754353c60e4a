"""The path between snapshots, against autograd at weights that are put there by hand."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geomix.data.batch import token_weights
from geomix.data.example import IGNORED, TokenisedExample
from geomix.measures.line_integral import path_change
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.schema import Snapshot
from geomix.training.observer import TrainingEvent

Make = Callable[[], Any]
Examples = Callable[[int, int], list[TokenisedExample]]
Probes = dict[str, list[TokenisedExample]]
Weights = dict[str, Tensor]


@pytest.fixture
def probes(examples: Examples) -> Probes:
    return {"d_a": examples(5, 1), "d_b": examples(4, 2)}


def recorder(folder: Path, probes: Probes, at: list[str | int], **changes: Any) -> Recorder:
    options: dict[str, Any] = {"reduction": "token", "batch_size": 3, "activations": 0}
    return Recorder(folder, probes, at, pad_id=0, midpoints=True, **{**options, **changes})


def weights(model: nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def trajectory(
    model: Any, data: list[TokenisedExample], observers: list[Recorder], steps: int = 4
) -> list[Weights]:
    """Plain gradient steps of growing length, announced as a stage's; the weights at each."""
    found = [weights(model)]
    for observer in observers:
        observer.observe(TrainingEvent(model, 0, "kvr", 0, steps, 0, None))
    for step in range(1, steps + 1):
        model.train()
        for _ in backward_over(
            plain_forward(model), batches_of(data, "token", 9, 0, torch.device("cpu"))
        ):
            pass
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.02 * step * p.grad)
        model.zero_grad()
        found.append(weights(model))
        for observer in observers:
            observer.observe(moment_at(model, found, step, steps))
    return found


def parts_of(found: list[Weights], step: int) -> dict[str, Weights]:
    """Three quarters and a quarter of the step."""
    move = {n: found[step][n] - found[step - 1][n] for n in found[0]}
    return {
        "D_B": {n: 0.75 * m for n, m in move.items()},
        "decay": {n: m / 4 for n, m in move.items()},
    }


def moment_at(
    model: Any, found: list[Weights], step: int, steps: int = 4, **more: Any
) -> TrainingEvent:
    return TrainingEvent(
        model, 0, "kvr", step, steps, 0, 1.0, update=lambda: parts_of(found, step), **more
    )


def loss_of(model: Any, data: list[TokenisedExample]) -> Tensor:
    weight = token_weights(data, "token")[0]
    total = torch.zeros((), dtype=torch.float64)
    for example in data:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        places = [t for t, label in enumerate(example.labels) if label != IGNORED]
        total = total - weight * sum(logits[t - 1, example.ids[t]].double() for t in places)
    return total


def gradient_at(make: Make, values: Weights, data: list[TokenisedExample]) -> Weights:
    model = make().double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(values[name])
    found = torch.autograd.grad(loss_of(model, data), list(model.parameters()))
    return dict(zip(values, found, strict=True))


def read(folder: Path, step: int) -> Snapshot:
    return read_snapshot(folder / f"stage0-step{step:06d}.h5")


@pytest.mark.parametrize("scratch", [False, True], ids=["memory", "disk"])
def test_products_are_those_of_gradients_at_start_middle_and_end(
    scratch: bool, tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    """In float64, per parameter tensor; the oracle is another model, set to each node's weights."""
    made = recorder(tmp_path, probes, [0, 1, 3], scratch=scratch)
    found = trajectory(gpt2().double().eval(), examples(6, 0), [made])
    for first, last in ((0, 1), (1, 3)):
        snapshot = read(tmp_path, last)
        path = snapshot.path
        assert path is not None
        assert (path.from_step, path.to_step) == (first, last)
        assert path.parts == ("total", "D_B", "decay")
        middle = {n: (found[first][n] + found[last][n]) / 2 for n in found[0]}
        for a, data in enumerate(probes.values()):
            for node, values in enumerate((found[first], middle, found[last])):
                gradient = gradient_at(gpt2, values, data)
                for m, name in enumerate(snapshot.parameters):
                    move = found[last][name] - found[first][name]
                    expected = float((gradient[name] * move).sum())
                    got = path.products[m, a, node]
                    assert got[0] == pytest.approx(expected, rel=1e-8, abs=1e-14), name
                    assert got[1] == pytest.approx(0.75 * expected, rel=1e-8, abs=1e-14)
                    assert got[2] == pytest.approx(0.25 * expected, rel=1e-8, abs=1e-14)
    assert read(tmp_path, 0).path is None
    assert read(tmp_path, 0).no_path == "the stage begins here"


@pytest.mark.parametrize("scratch", [False, True], ids=["memory", "disk"])
def test_a_pair_is_the_line_between_every_other_snapshot(
    scratch: bool, tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    """By the same oracle; the parts are shares of each step that differ from step to step."""
    made = recorder(tmp_path, probes, [0, 1, 3, 4], scratch=scratch, pairs=True)
    found = trajectory(gpt2().double().eval(), examples(6, 0), [made])
    first = read(tmp_path, 1).path
    assert first is not None
    assert first.pair is None
    for begin, last in ((0, 3), (1, 4)):
        snapshot = read(tmp_path, last)
        path = snapshot.path
        assert path is not None
        assert path.pair is not None
        assert (path.pair_from_step, path.to_step, path.pair.shape[2:]) == (begin, last, (2, 3))
        for a, data in enumerate(probes.values()):
            for node, values in enumerate((found[begin], found[last])):
                gradient = gradient_at(gpt2, values, data)
                for m, name in enumerate(snapshot.parameters):
                    move = found[last][name] - found[begin][name]
                    expected = float((gradient[name] * move).sum())
                    total, share, decay = path.pair[m, a, node]
                    assert total == pytest.approx(expected, rel=1e-8, abs=1e-14), name
                    assert share == pytest.approx(0.75 * expected, rel=1e-8, abs=1e-14)
                    assert decay == pytest.approx(0.25 * expected, rel=1e-8, abs=1e-14)


def test_pairs_change_nothing_else(
    tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    made = [
        recorder(tmp_path / str(pairs), probes, ["every:1"], pairs=pairs) for pairs in (False, True)
    ]
    trajectory(gpt2().eval(), examples(6, 0), made)
    for step in range(1, 5):
        one, other = (read(tmp_path / str(pairs), step).path for pairs in (False, True))
        assert one is not None
        assert other is not None
        assert np.array_equal(one.products, other.products)
        assert one.pair is None
        assert (other.pair is None) == (step == 1)


def test_a_run_that_goes_on_lacks_one_pair(
    tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    """The snapshot before the checkpoint is gone; a pair that is on the disk already stays."""
    whole = recorder(tmp_path / "whole", probes, ["every:1"], pairs=True)
    model = gpt2().eval()
    found = trajectory(model, examples(6, 0), [whole])
    known = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    for folder in ("whole", "anew"):
        made = recorder(tmp_path / folder, probes, ["every:1"], pairs=True)
        for step in range(1, 5):
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(found[step][name])
            moment = moment_at(model, found, step)
            made.observe(replace(moment, resumed=True, update=None) if step == 1 else moment)
    assert {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()} == known
    one, anew = read(tmp_path / "whole", 2).path, read(tmp_path / "anew", 2).path
    assert one is not None
    assert anew is not None
    assert np.array_equal(one.products, anew.products)
    assert one.pair is not None
    assert anew.pair is None
    for step in (3, 4):
        name = f"stage0-step{step:06d}.h5"
        assert (tmp_path / "anew" / name).read_bytes() == known[name]


def test_simpsons_sum_is_the_change_of_the_loss(
    tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    model = gpt2().double().eval()
    before = [float(loss_of(model, data).detach()) for data in probes.values()]
    trajectory(model, examples(6, 0), [recorder(tmp_path, probes, ["every:1"])])
    model.eval()
    after = [float(loss_of(model, data).detach()) for data in probes.values()]
    paths = [read(tmp_path, step).path for step in range(1, 5)]
    change = path_change(np.stack([p.products for p in paths if p is not None]))
    for a in range(2):
        measured = after[a] - before[a]
        assert abs(measured) > 0.01
        assert change.simpson[:, a, 0].sum() == pytest.approx(measured, rel=1e-3)
        assert change.simpson[:, a, 1:].sum() == pytest.approx(measured, rel=1e-3)
        trapezoid = change.trapezoid[:, a, 0].sum()
        assert abs(trapezoid - measured) > 2 * abs(change.simpson[:, a, 0].sum() - measured)


def test_the_weights_come_back_bit_for_bit(
    tmp_path: Path, llama: Make, probes: Probes, examples: Examples
) -> None:
    """Also when looking at the middle fails; the very tensors that the optimiser knows."""
    plain, watched = llama(), llama()
    made = recorder(tmp_path, probes, ["every:1"])
    expected = trajectory(plain, examples(6, 0), [])
    found = trajectory(watched, examples(6, 0), [made])
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    model = llama()
    made = recorder(tmp_path / "failing", probes, ["every:1"])
    made.observe(TrainingEvent(model, 0, "kvr", 0, 4, 0, None))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    before, places = weights(model), [p.data_ptr() for p in model.parameters()]
    seen = []

    def fail(_: nn.Module, args: tuple[Tensor]) -> None:
        seen.append(model.model.layers[0].mlp.up_proj.weight.detach().clone())
        raise KeyError

    model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        made.observe(TrainingEvent(model, 0, "kvr", 1, 4, 0, None))
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(seen[0], before[name] - 0.05)  # the middle it was
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert [p.data_ptr() for p in model.parameters()] == places
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.grad is None for p in model.parameters())


def test_a_run_that_goes_on_at_a_snapshot_records_the_same_path(
    tmp_path: Path, gpt2: Make, probes: Probes, examples: Examples
) -> None:
    at: list[str | int] = ["every:2"]
    whole = recorder(tmp_path / "whole", probes, at)
    model = gpt2().eval()
    found = trajectory(model, examples(6, 0), [whole])

    def goes_on(folder: Path, step: int) -> None:
        made = recorder(folder, probes, at)
        for now in range(step, 5):
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(found[now][name])
            moment = moment_at(model, found, now)
            if now == step:
                moment = replace(moment, resumed=True, update=None)
            made.observe(moment)

    goes_on(tmp_path / "at", 2)
    assert [p.name for p in (tmp_path / "at").iterdir()] == ["stage0-step000004.h5"]
    one, other = read(tmp_path / "whole", 4), read(tmp_path / "at", 4)
    assert one.path is not None
    assert other.path is not None
    assert np.array_equal(one.path.products, other.path.products)
    assert (other.path.from_step, other.path.parts) == (2, one.path.parts)
    goes_on(tmp_path / "between", 3)
    lost = read(tmp_path / "between", 4)
    assert lost.path is None
    assert "the weights of the snapshot before were not at hand" in lost.no_path
    assert np.array_equal(lost.inner_products, one.inner_products)


def test_a_later_stage_begins_a_path_of_its_own(tmp_path: Path, gpt2: Make, probes: Probes) -> None:
    """A segment starts without a snapshot, as its weights are those of the previous stage's end."""
    model = gpt2().eval()
    made = recorder(tmp_path, probes, ["boundaries"])
    made.observe(TrainingEvent(model, 0, "kvr", 0, 3, 0, None))
    move = {n: torch.full_like(p, 1e-3) for n, p in model.named_parameters()}
    for stage, step, last in ((0, 3, True), (1, 0, False), (1, 2, True)):
        if step:
            with torch.no_grad():
                for n, p in model.named_parameters():
                    p.add_(move[n])
        made.observe(
            TrainingEvent(
                model, stage, "x", step, 3, 0, None, last=last, update=lambda: {"D_B": move}
            )
            if step
            else TrainingEvent(model, stage, "x", step, 3, 0, None)
        )
    path = read_snapshot(tmp_path / "stage1-step000002.h5").path
    assert path is not None
    assert (path.from_step, path.to_step) == (0, 2)
    np.testing.assert_allclose(path.products[..., 0], path.products[..., 1], rtol=1e-3, atol=1e-7)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_stage_that_trains_other_parameters_has_no_path_from_before(
    tmp_path: Path, gpt2: Make, probes: Probes
) -> None:
    model = gpt2().eval()
    made = recorder(tmp_path, probes, ["every:1"])
    made.observe(TrainingEvent(model, 0, "kvr", 0, 2, 0, None))
    model.transformer.wte.weight.requires_grad_(False)
    made.observe(TrainingEvent(model, 0, "kvr", 1, 2, 0, None))
    assert read(tmp_path, 1).path is None


@pytest.mark.parametrize(("stage", "step"), [(1, 3), (0, 1), (0, 2)])
def test_there_is_no_path_to_another_stage_or_back(
    stage: int, step: int, tmp_path: Path, gpt2: Make, probes: Probes
) -> None:
    """As where single checkpoints are shown to it, in any order."""
    model = gpt2().eval()
    made = recorder(tmp_path, probes, ["every:1"])
    made.snapshot(TrainingEvent(model, 0, "kvr", 2, 4, 0, None))
    found = made.snapshot(TrainingEvent(model, stage, "kvr", step, 4, 0, None))
    assert found.path is None
    assert found.no_path == "the weights of the snapshot before were not at hand"
    later = made.snapshot(TrainingEvent(model, stage, "kvr", 4, 4, 0, None)).path
    assert later is not None
    assert (later.from_step, later.to_step) == (step, 4)


def test_on_disk_one_gradient_at_a_time_is_in_memory(
    tmp_path: Path,
    gpt2: Make,
    probes: Probes,
    examples: Examples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a stage's start, in the middle of a piece and at its end, also where no snapshot is."""
    taken: list[weakref.ref[Tensor]] = []
    take = Recorder._take

    def watched(self: Recorder, parameters: Any) -> Any:
        alive = sum(one() is not None for one in taken)
        assert alive == 0, f"{alive} gradients beside the one that was just computed"
        found = take(self, parameters)
        taken.extend(weakref.ref(tensor) for tensor in found if tensor is not None)
        return found

    monkeypatch.setattr(Recorder, "_take", watched)
    made = recorder(tmp_path, probes, [1, 3], scratch=True, pairs=True)
    model = gpt2()
    trajectory(model, examples(6, 3), [made])
    tensors = len(list(model.parameters()))
    sets, snapshots, middles, starts = 2, 2, 2, 1
    assert len(taken) == tensors * sets * (snapshots + middles + starts)
