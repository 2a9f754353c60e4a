"""Trainable parameters, and adapters that leave an ordinary model behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.config.training import LoraConfig
from geomix.models.load import CPU, LoadedModel, load_model
from geomix.training.trainable import (
    adapters,
    attach,
    load_adapters,
    merge,
    set_trained,
    trained_names,
    without_adapters,
)
from geomix.util.errors import UserError

LORA = LoraConfig(rank=2, alpha=4.0)


@pytest.mark.parametrize(
    ("patterns", "inside", "outside"),
    [
        (["layers:1"], "model.layers.0.", "model.layers.1."),
        (["layers:1-2"], "model.layers.", "model.norm."),
        (["module:mlp"], ".mlp.", ".self_attn."),
        (["module:q_proj"], ".q_proj.", ".k_proj."),
        (["embedding"], "embed_tokens", "layers"),
        (["*.mlp.up_proj.weight"], ".up_proj.", ".down_proj."),
        (["layers:2", "embedding"], "layers.1.", "layers.0."),
    ],
)
def test_patterns_by_hand(loaded: LoadedModel, patterns: Any, inside: str, outside: str) -> None:
    names = {name for name, _ in loaded.model.named_parameters()}
    found = trained_names(loaded.model, patterns, "here")
    assert {name for name in names if inside in name} <= found < names
    assert not any(outside in name for name in found)


def test_the_head_is_a_parameter_of_its_own_or_none(loaded: LoadedModel) -> None:
    """A tied one is the embedding, and what it is called with is trained as that or not at all."""
    with pytest.raises(UserError, match="a head that is tied to the embedding is the embedding"):
        trained_names(loaded.model, ["head"], "here")
    model: Any = loaded.model
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    assert trained_names(model, ["head"], "here") == {"lm_head.weight"}


def test_adapters_on_tied_ends_are_one_line(loaded: LoadedModel) -> None:
    for target in ("embed_tokens", "lm_head"):
        model = copy.deepcopy(loaded.model)
        with pytest.raises(UserError, match=r"here\.targets: the embedding and the head .* one"):
            attach(model, LoraConfig(targets=[target]), "here")


def test_all_are_all(loaded: LoadedModel) -> None:
    names = trained_names(loaded.model, "all", "here")
    assert names == {name for name, _ in loaded.model.named_parameters()}


@pytest.mark.parametrize(
    "pattern", ["layers:3", "layers:7-9", "module:mpl", "module:q", "norm", "lm_hed.*"]
)
def test_a_pattern_that_matches_nothing_is_one_line(loaded: LoadedModel, pattern: str) -> None:
    with pytest.raises(UserError, match=r"here: '.*' matches none of the model's") as raised:
        trained_names(loaded.model, ["embedding", pattern], "here")
    assert pattern in raised.value.lines[0]


@pytest.mark.parametrize("pattern", ["layers:0", "layers:0-1"])
def test_the_first_layer_is_1(loaded: LoadedModel, pattern: str) -> None:
    """A span from 0 might mean two things: blocks count from 1 since schema 4, from 0 before."""
    with pytest.raises(UserError, match=r"here: .* layers count from 1, the first block, to 2"):
        trained_names(loaded.model, [pattern], "here")


def test_exactly_the_chosen_ones_require_a_gradient(loaded: LoadedModel) -> None:
    chosen = trained_names(loaded.model, ["layers:2"], "here")
    set_trained(loaded.model, chosen)
    assert {n for n, p in loaded.model.named_parameters() if p.requires_grad} == chosen


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_model: Path, dropout_model: Path) -> Any:
    """A Llama, and a GPT-2, whose weights are transposed and tied."""
    folder = tiny_model if request.param == "llama" else dropout_model
    return load_model(str(folder), CPU).model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return found


def test_adapters_begin_as_nothing_and_train_alone(model: Any) -> None:
    before, kept = logits(model), copy.deepcopy(model.state_dict())
    attach(model, LORA, "here")
    assert torch.equal(logits(model), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(adapters(model))
    assert len(trained) >= 4
    assert not any("lm_head" in name for name in trained)
    assert without_adapters(model.state_dict()).keys() == kept.keys()
    for name, value in without_adapters(model.state_dict()).items():
        assert torch.equal(value, kept[name]), name


@torch.no_grad()
def drawn(model: Any) -> None:
    for parameter in adapters(model).values():
        parameter.normal_(0, 0.3)


def test_merged_weights_are_base_plus_scaled_product(model: Any) -> None:
    """W + (alpha / rank) B A, computed here in float64; the names are those of before."""
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuner = attach(model, LORA, "here")
    torch.manual_seed(3)
    drawn(model)
    held = {name: p.detach().clone() for name, p in adapters(model).items()}
    before = logits(model)
    merge(tuner)
    assert {name for name, _ in model.named_parameters()} == kept.keys()
    assert all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    changed = 0
    for name, parameter in model.named_parameters():
        expected = kept[name].double()
        module = name.removesuffix(".weight")
        if f"{module}.lora_A.default.weight" in held:
            a, b = (held[f"{module}.lora_{x}.default.weight"].double() for x in "AB")
            product = 2.0 * (b @ a)
            expected = expected + (product.T if "c_" in module else product)
            changed += 1
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert changed == len(held) / 2


def test_adapters_come_back(model: Any) -> None:
    other = copy.deepcopy(model)
    attach(model, LORA, "here")
    drawn(model)
    attach(other, LORA, "here")
    load_adapters(other, {name: p.detach().clone() for name, p in adapters(model).items()})
    assert torch.equal(logits(other), logits(model))


def test_modules_that_are_not_there_are_one_line(model: Any) -> None:
    with pytest.raises(UserError, match=r"here: .*q_prj") as raised:
        attach(model, LoraConfig(targets=["q_prj"]), "here")
    assert len(raised.value.lines) == 1


def test_an_adapters_dropout_draws_in_training_alone(loaded: LoadedModel) -> None:
    """The model is a Llama, which has no other dropout."""
    attach(loaded.model, LoraConfig(rank=2, alpha=4.0, dropout=0.5), "here")
    drawn(loaded.model)
    loaded.model.train()
    assert not torch.equal(logits(loaded.model), logits(loaded.model))
    loaded.model.eval()
    assert torch.equal(logits(loaded.model), logits(loaded.model))
