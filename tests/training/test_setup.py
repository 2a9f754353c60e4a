"""A stage's model and optimiser: prepared, resumed, and restored to an ordinary model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.config.run import RunConfig
from geomix.data.chat import chat_format
from geomix.data.plan import plan_stages
from geomix.models.distributed import ALONE, Kind, Workers
from geomix.models.load import CPU, LoadedModel, load_model
from geomix.training.checkpoint import Position, check, save
from geomix.training.setup import Setup, check_setup, check_workers, weights_dtype
from geomix.training.stage import Stage, stages_of
from geomix.training.step import seed_dropout
from geomix.training.trainable import adapters
from geomix.util.errors import UserError

LORA = {"rank": 2, "dropout": 0.1}
DATA = [{"source": "kvr", "limit": 4}, {"source": "arithmetic", "limit": 4}]


def config(first: dict[str, Any], second: dict[str, Any] | None = None, **keys: Any) -> RunConfig:
    """Two stages, each with its `train`."""
    stages = [
        {"data": data, "train": {"lr": 1e-2, "batch_size": 2, **train}}
        for data, train in zip(DATA, (first, second or {}), strict=True)
    ]
    return RunConfig.model_validate({"stages": stages, "record": None, **keys})


def stages(run: RunConfig, loaded: LoadedModel) -> list[Stage]:
    chat = chat_format(run.chat_template, loaded.tokenizer)
    return stages_of(run, plan_stages(run), loaded.tokenizer, chat)


def ready(run: RunConfig, loaded: LoadedModel, index: int = 0) -> Setup:
    return Setup.of(run, stages(run, loaded)[index], loaded, ALONE, None)


def train(setup: Setup, stage: Stage, steps: range) -> list[float]:
    """Some steps; their losses."""
    setup.loaded.model.train()
    losses = []
    for step in steps:
        seed_dropout(0, stage.index, step)
        part = stage.own[step % 2 * 2 :][:2]
        losses.append(setup.stepper.step({"D_A": part, "D_M": stage.own[:1]}).loss)
    return losses


def test_adapters_are_drawn_from_the_seed_and_the_stage(tiny_model: Path) -> None:
    """Whatever was drawn before, and apart from every step's dropout."""

    def drawn(seed: int, index: int, before: int) -> torch.Tensor:
        loaded = load_model(str(tiny_model), CPU)
        torch.manual_seed(before)
        ready(config({"lora": LORA}, {"lora": LORA}, seed=seed), loaded, index)
        held = [p.detach().flatten() for n, p in adapters(loaded.model).items() if "lora_A" in n]
        return torch.cat(held)

    found = drawn(0, 0, before=1)
    assert torch.equal(found, drawn(0, 0, before=2))
    assert not torch.equal(found, drawn(1, 0, before=1))
    assert not torch.equal(found, drawn(0, 1, before=1))


def test_activations_are_computed_again_in_the_stage_that_asks_for_it(loaded: LoadedModel) -> None:
    """Counted: a layer's forward passes in one step of each of two stages."""
    run = config({"gradient_checkpointing": True})
    calls: list[int] = []
    counts = []
    model: Any = loaded.model
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for stage in stages(run, loaded):
        setup = ready(run, loaded, stage.index)
        train(setup, stage, range(1))
        counts.append(len(calls))
        setup.finish()
        calls.clear()
        torch.autograd.backward(model.train()(input_ids=torch.tensor([[5, 6]])).logits.sum())
        assert len(calls) == 1, "the model is as it was before"
        model.zero_grad()
        calls.clear()
    assert counts == [4, 2], "a pass for each of two sources"


def test_a_stage_leaves_an_ordinary_model_and_the_moments_of_what_trained(
    loaded: LoadedModel,
) -> None:
    """Adapters: merged, so that nothing is lost of what the model says, and v̂ is theirs."""
    model = loaded.model
    names = [name for name, _ in model.named_parameters()]
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = config({"lora": LORA}, {"trainable": ["layers:2"]})
    first, second = stages(run, loaded)
    setup = ready(run, loaded)
    trained = set(adapters(model))
    train(setup, first, range(3))
    weights = setup.weights()
    assert weights is not None
    assert (
        dict.fromkeys(names, True).items()
        <= {name: torch.equal(weights[name], kept[name]) for name in names}.items()
    ), "within the stage the model's own weights are what they were"
    assert not any("lora" in name or "base_layer" in name for name in weights)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        said = model.eval()(input_ids=ids).logits
    moments = setup.finish()
    assert set(moments) == trained
    assert [name for name, _ in model.named_parameters()] == names
    assert setup.weights() is None
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, said, rtol=1e-4, atol=1e-5)
        assert float((said - ready_logits(kept, loaded, ids)).abs().max()) > 1e-3, "nothing learnt"
    part = ready(run, loaded, 1)
    train(part, second, range(1))
    assert set(part.finish()) == {name for name in names if "layers.1." in name}
    assert all(p.requires_grad for p in model.parameters())
    assert not model.training


def ready_logits(
    weights: dict[str, torch.Tensor], loaded: LoadedModel, ids: torch.Tensor
) -> torch.Tensor:
    """Return the model's output with other weights."""
    found: torch.Tensor = torch.func.functional_call(loaded.model, weights, (ids,)).logits
    return found


@pytest.mark.parametrize(
    "keys", [{"lora": LORA}, {"update_shares": True}, {"lora": LORA, "update_shares": True}]
)
def test_a_stage_is_gone_on_with_to_the_bit(
    tiny_model: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    """Adapters and the sources' moments come back from a checkpoint within the stage."""
    run = config(keys)
    loaded = load_model(str(tiny_model), CPU)
    stage = stages(run, loaded)[0]
    setup = ready(run, loaded)
    train(setup, stage, range(2))
    path = tmp_path / "step-000002"
    save(path, loaded, setup.state(), Position(0, step=2), setup.weights())
    losses = train(setup, stage, range(2, 4))
    again = load_model(str(path), CPU)
    torch.manual_seed(7)
    gone_on = Setup.of(run, stage, again, ALONE, check(path))
    assert train(gone_on, stage, range(2, 4)) == losses
    found, expected = gone_on.state(), setup.state()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    for key in [key for key in expected if key.startswith("share=D_A:")]:
        both = expected[key] + expected[key.replace("D_A", "D_M")]
        name = key.removeprefix("share=D_A:")
        torch.testing.assert_close(both, expected[f"exp_avg:{name}"], rtol=1e-4, atol=1e-7)
    assert any(key.startswith("share=D_M:") for key in found) == ("update_shares" in keys)


def test_weights_are_kept_as_each_stage_says(loaded: LoadedModel) -> None:
    run = config({"precision": "bf16"}, {"precision": "bf16-pure"})
    assert [weights_dtype(run, index) for index in (0, 1)] == [torch.float32, torch.bfloat16]
    for index in (0, 1):
        ready(run, loaded, index)
        assert {p.dtype for p in loaded.model.parameters()} == {weights_dtype(run, index)}
    literal = config({}, paper_literal=["bf16-weights"])
    assert weights_dtype(literal, 0) == torch.bfloat16


@pytest.mark.parametrize(
    ("first", "second", "keys", "kind", "says"),
    [
        ({}, {"trainable": ["layers:9"]}, {}, "ddp", r"stages\[1\]\.train\.trainable: 'layers:9'"),
        ({}, {"lora": {"targets": ["none"]}}, {}, "ddp", r"stages\[1\]\.train\.lora: .*none"),
        ({}, {}, {"record": {"sketches": {}}}, "fsdp", "fsdp: record.sketches needs whole weights"),
        ({}, {"lora": LORA}, {}, "fsdp", "fsdp: adapters are not sharded"),
        (
            {},
            {"precision": "bf16-pure"},
            {},
            "fsdp",
            "fsdp: bf16-pure must be the precision of all",
        ),
    ],
)
def test_what_a_later_stage_cannot_train_with_is_one_line_before_the_first(
    loaded: LoadedModel,
    first: dict[str, Any],
    second: dict[str, Any],
    keys: dict[str, Any],
    kind: Kind,
    says: str,
) -> None:
    run = config(first, second, **keys)
    with pytest.raises(UserError, match=says) as raised:
        checked(run, loaded, Workers(world=2, kind=kind))
    assert len(raised.value.lines) == 1
    if kind == "fsdp":
        check_workers(run, Workers(world=2, kind="ddp"))
        check_workers(run, Workers(world=1, kind="fsdp"))


def checked(run: RunConfig, loaded: LoadedModel, workers: Workers) -> None:
    check_setup(run, loaded)
    check_workers(run, workers)


def test_a_model_that_cannot_recompute_is_one_line(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(loaded.model), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"stages\[1\]\.train\.gradient_checkpointing: this model"):
        check_setup(config({}, {"gradient_checkpointing": True}), loaded)
    check_setup(config({}), loaded)
