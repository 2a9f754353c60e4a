"""Contents of a snapshot besides activations: each against plain autograd, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geomix.data.batch import token_weights
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.spill import on_disk
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot, write_snapshot
from geomix.snapshots.schema import Snapshot
from geomix.training.observer import SecondMoments, TrainingEvent
from geomix.util.errors import UserError
from tests.recording.architectures import maker

Make = Callable[[], Any]
Examples = Callable[[int, int], list[TokenisedExample]]
MakeMoment = Callable[..., TrainingEvent]
Probes = dict[str, list[TokenisedExample]]


@pytest.fixture
def probes(examples: Examples) -> Probes:
    return {"d_a": examples(5, 1), "d_b": examples(4, 2)}


def recorder(folder: Path, probes: Probes, **changes: Any) -> Recorder:
    options: dict[str, Any] = {"at": ["boundaries"], "reduction": "example", "batch_size": 3}
    return Recorder(folder, probes, pad_id=0, **{**options, **changes})


def loss_of(model: Any, data: Sequence[TokenisedExample]) -> Tensor:
    """Mean loss, one example after the other, its targets picked out by hand."""
    total = torch.zeros((), dtype=torch.float64)
    for example, weight in zip(data, token_weights(data, "example"), strict=True):
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        places = [t for t, label in enumerate(example.labels) if label != IGNORED]
        total = total - weight * sum(logits[t - 1, example.ids[t]].double() for t in places)
    return total


def gradients(model: Any, data: Sequence[TokenisedExample]) -> list[Tensor]:
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss_of(model, data), parameters, allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return [torch.zeros_like(p) if g is None else g.detach() for p, g in pairs]


def second_moments(model: nn.Module, seed: int = 3) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    named = model.named_parameters()
    return {n: torch.rand(p.shape, generator=draw).double() ** 4 * 1e-3 for n, p in named}


def with_moments(
    moment: TrainingEvent, found: dict[str, Tensor], eps: float = 1e-3
) -> TrainingEvent:
    second = SecondMoments(stage=0, step=7, eps=eps, read=lambda: found)
    return TrainingEvent(moment.model, 0, "kvr", 4, 4, 0, None, second_moments=second)


def test_adams_products_weigh_every_element(
    tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    """In float64; the oracle makes the whole diagonal and multiplies it out."""
    model = gpt2().double().eval()
    found = second_moments(model)
    now = with_moments(moment(model), found)
    recorder(tmp_path, probes).observe(now)
    read = read_snapshot(tmp_path / "stage0-step000004.h5")
    assert read.adam is not None
    assert (read.adam.stage, read.adam.step, read.adam.eps) == (0, 7, 1e-3)
    whole = [gradients(model, data) for data in probes.values()]
    for index, name in enumerate(read.parameters):
        metric = 1 / (found[name].sqrt() + 1e-3)
        for a, one in enumerate(whole):
            for b, other in enumerate(whole):
                expected = float((one[index] * metric * other[index]).sum())
                got = read.adam.products[index, a, b]
                assert got == pytest.approx(expected, rel=1e-9, abs=1e-13), name
    assert not np.allclose(read.adam.products, read.inner_products)
    assert np.array_equal(read.adam.products, read.adam.products.transpose(0, 2, 1))


def test_a_parameter_without_a_second_moment_has_no_metric(
    tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    model = gpt2()
    found = second_moments(model)
    missing = found.pop("transformer.wpe.weight")
    snapshot = recorder(tmp_path, probes).snapshot(with_moments(moment(model), found))
    assert snapshot.adam is not None
    gone = snapshot.parameters.index("transformer.wpe.weight")
    assert np.isnan(snapshot.adam.products[gone]).all()
    assert np.isfinite(np.delete(snapshot.adam.products, gone, axis=0)).all()
    other = with_moments(moment(model), {"lora": missing})
    assert recorder(tmp_path, probes).snapshot(other).adam is None
    assert recorder(tmp_path, probes).snapshot(moment(model)).adam is None
    off = recorder(tmp_path, probes, adam=False).snapshot(with_moments(moment(model), found))
    assert off.adam is None


@pytest.mark.parametrize("where", [False, True], ids=["memory", "disk"])
def test_whole_gradients_are_the_sets(
    where: bool, tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    model = gpt2().double().eval()
    model.register_parameter("unused", nn.Parameter(torch.ones(3).double()))
    recorder(tmp_path, probes, gradients=True, scratch=where).observe(moment(model))
    (path,) = tmp_path.iterdir()
    with h5py.File(path) as file:
        for name, data in probes.items():
            expected = gradients(model, data)
            group = file[f"gradients/{name}"]
            for (parameter, _), whole in zip(model.named_parameters(), expected, strict=True):
                stored = torch.tensor(group[parameter][:])
                torch.testing.assert_close(stored, whole.float(), rtol=1e-5, atol=1e-9)
                axes = [scale[0] for scale in group[parameter].dims]
                assert [len(axis) for axis in axes] == list(whole.shape)
                assert len(set(axes)) == len(axes)


def test_what_no_gradient_reaches_is_zero_and_named(
    tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    model = gpt2()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    write_snapshot(tmp_path / "one.h5", recorder(tmp_path, probes).snapshot(moment(model)))
    read = read_snapshot(tmp_path / "one.h5")
    named = [n for n, gone in zip(read.parameters, read.unreached, strict=True) if gone.any()]
    assert named == ["unused"]
    assert read.unreached[read.parameters.index("unused")].tolist() == [True, True]
    assert len(read.parameters) == read.trainable == len(list(model.parameters()))


def arrays(snapshot: Snapshot) -> list[Any]:
    kept = [r.activations for r in snapshot.probes.values()]
    assert snapshot.adam is not None
    return [snapshot.inner_products, snapshot.adam.products, snapshot.unreached, *kept]


def test_scratch_on_disk_changes_no_number_and_leaves_no_name(
    tmp_path: Path,
    gpt2: Make,
    probes: Probes,
    moment: MakeMoment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = gpt2()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    model.register_parameter("scalar", nn.Parameter(torch.tensor(2.0)))
    model.lm_head.register_forward_pre_hook(lambda _, args: (args[0] * model.scalar,))
    now = with_moments(moment(model), second_moments(model))
    reserved, names = [], []
    real = os.posix_fallocate

    def counted(descriptor: int, start: int, size: int) -> None:
        reserved.append(size)
        names.append(list((tmp_path / "disk").iterdir()))
        real(descriptor, start, size)

    memory = recorder(tmp_path / "memory", probes).snapshot(now)
    monkeypatch.setattr(os, "posix_fallocate", counted)
    disk = recorder(tmp_path / "disk", probes, scratch=True).snapshot(now)
    for one, other in zip(arrays(memory), arrays(disk), strict=True):
        assert np.array_equal(one, other)
    sizes = [p.numel() * 4 for n, p in model.named_parameters() if n != "unused"]
    assert len(reserved) == 2
    assert all(sum(sizes) <= size <= sum(sizes) + 64 * len(sizes) for size in reserved)
    assert names == [[], []]
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_full_scratch_disk_is_an_error_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as raised:
        on_disk(tmp_path / "there")([torch.ones(3)])
    assert raised.value.filename == str(tmp_path / "there")


def by_hook(model: Any, name: str, data: TokenisedExample) -> tuple[Tensor, Tensor]:
    """A module's output for one example alone, and the gradient of its summed loss there."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        outputs.append(out[0] if isinstance(out, tuple) else out)

    handle = model.get_submodule(name).register_forward_hook(keep)
    loss = loss_of(model, [data])
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, outputs)
    return outputs[0].detach()[0].flatten(1), gradient[0].flatten(1)


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
def test_modules_give_their_outputs_and_gradients_at_the_kept_positions(
    capture: Any, tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    """Attention returns a tuple, a norm within it none; a layer is also in the residual stream."""
    model, data = llama().eval(), examples(5, 1)
    patterns = ["*.mlp", "model.layers.1.self_attn", "model.layers.0"]
    names = ["model.layers.0", "model.layers.0.mlp", "model.layers.1.self_attn"]
    names.append("model.layers.1.mlp")
    options: dict[str, Any] = {"capture": capture, "activations": 3, "batch_size": 2}
    made = recorder(tmp_path, {"d_a": data}, modules=patterns, **options)
    write_snapshot(tmp_path / "one.h5", made.snapshot(moment(model)))
    record = read_snapshot(tmp_path / "one.h5").probes["d_a"]
    assert sorted(record.modules) == sorted(names)
    for name, found in record.modules.items():
        assert found.activations.dtype == np.float32
        for i, example in enumerate(data[:3]):
            rows = slice(record.offsets[i], record.offsets[i + 1])
            output, gradient = by_hook(model, name, example)
            where = record.positions[rows]
            np.testing.assert_allclose(found.activations[rows], output[where], atol=1e-5)
            expected = gradient[where] / len(data)
            np.testing.assert_allclose(found.gradients[rows], expected, rtol=1e-3, atol=1e-6)
        assert len(found.activations) == record.offsets[3]
    assert record.activations is not None
    assert np.array_equal(record.modules["model.layers.0"].activations, record.activations[:, 1])


def test_both_captures_take_the_same_modules_bit_for_bit(
    tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    found = [
        recorder(tmp_path, probes, modules=["*.attn", "*.c_fc"], capture=capture)
        .snapshot(moment(gpt2()))
        .probes["d_b"]
        .modules
        for capture in ("nnsight", "hooks")
    ]
    assert len(found[0]) == 6
    for name, one in found[0].items():
        assert np.array_equal(one.activations, found[1][name].activations)
        assert np.array_equal(one.gradients, found[1][name].gradients)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("*.nothing", "record.modules: '*.nothing' matches none of the model's"),
        ("transformer", "record.modules: transformer gives out no features at every token"),
        ("lm_head", "record.modules: lm_head gives out no features at every token"),
        ("transformer.drop", "record.modules: no gradient of the loss reaches transformer.drop"),
    ],
)
def test_modules_that_cannot_be_recorded_are_refused(
    pattern: str, told: str, tmp_path: Path, gpt2: Make, probes: Probes, moment: MakeMoment
) -> None:
    model = gpt2()
    if pattern == "transformer.drop":
        model.transformer.wte.weight.requires_grad_(False)
        model.transformer.wpe.weight.requires_grad_(False)
        model.transformer.drop.register_forward_hook(lambda _, __, out: out + 0)
        model.transformer.h[0].register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    for capture in ("nnsight", "hooks"):
        made = recorder(tmp_path, probes, modules=[pattern], capture=capture)
        with pytest.raises(UserError) as raised:
            made.snapshot(moment(model))
        assert raised.value.lines[0].startswith(told)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("MixtralConfig", {"num_local_experts": 8}),
        ("Qwen2MoeConfig", {"num_experts": 8, "shared_expert_intermediate_size": 20}),
    ],
)
def test_experts_are_covered_also_those_that_no_token_chose(
    kind: str, extra: dict[str, Any], tmp_path: Path, moment: MakeMoment, examples: Examples
) -> None:
    """Three tokens of two experts each leave some of eight idle: their gradient is zero."""
    model = maker(kind, {**extra, "num_experts_per_tok": 2})().double().eval()
    (one,) = examples(1, 4)
    data = [TokenisedExample(one.ids[-3:], (IGNORED, *one.ids[-2:]), Example("p", "t"))]
    recorder(tmp_path, {"d_a": data}, gradients=True).observe(moment(model))
    (path,) = tmp_path.iterdir()
    read = read_snapshot(path)
    assert read.parameters == tuple(n for n, _ in model.named_parameters())
    assert not read.unreached.any()
    experts = [n for n in read.parameters if "experts." in n and "shared" not in n]
    assert experts
    idle = 0
    with h5py.File(path) as file:
        for parameter, whole in zip(read.parameters, gradients(model, data), strict=True):
            stored = torch.tensor(file[f"gradients/d_a/{parameter}"][:])
            torch.testing.assert_close(stored, whole.float(), rtol=1e-3, atol=1e-6)
            if parameter in experts:
                idle += int((stored.flatten(1) == 0).all(1).sum())
    assert idle > 0
