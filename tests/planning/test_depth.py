"""A deep model's memory from two shallow ones, against all of its layers measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geomix.config.training import LoraConfig
from geomix.models.layers import decoder_layers
from geomix.models.meta import weightless
from geomix.planning import memory
from geomix.planning.depth import SHALLOW, alike, peak, truncate
from geomix.planning.memory import MicroBatch, memory_of
from geomix.training.setup import checkpointing
from geomix.training.trainable import attach, set_trained

DEEP = SHALLOW + 3


def llama(**more: Any) -> Any:
    from transformers import LlamaConfig

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 80}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(**{**sizes, **heads, "num_hidden_layers": DEEP, **more})


def again(model: nn.Module) -> nn.Module:
    checkpointing(model, on=True)
    return model


def adapted(model: nn.Module) -> nn.Module:
    attach(model, LoraConfig(rank=4), "lora")
    return model


def some(model: nn.Module) -> nn.Module:
    set_trained(
        model, {n for n, _ in model.named_parameters() if ".0." in n or f".{DEEP - 1}." in n}
    )
    return model


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Layers of every model that is measured."""
    seen: list[int] = []
    real = memory._measure

    def counted(model: nn.Module, *rest: Any) -> Any:
        seen.append(len(decoder_layers(model)))
        return real(model, *rest)

    monkeypatch.setattr(memory, "_measure", counted)
    return seen


@pytest.mark.parametrize(
    ("config", "prepare", "precision", "micro"),
    [
        (llama(), nn.Module.train, "bf16", MicroBatch(8, 64, 16)),
        pytest.param(  # the logits are highest
            *(llama(vocab_size=9_000), again, "bf16", MicroBatch(1, 64, 60)), marks=pytest.mark.slow
        ),
        pytest.param(
            *(llama(tie_word_embeddings=True), adapted, "fp32", MicroBatch(4, 16, 9)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_depths_give_what_all_layers_have(
    measured: list[int],
    config: Any,
    prepare: Callable[[nn.Module], nn.Module],
    precision: str,
    micro: MicroBatch,
) -> None:
    found = memory_of(config, micro, precision, prepare=prepare)
    assert measured == [SHALLOW, SHALLOW + 1]
    assert found == memory_of(config, micro, precision, prepare=prepare, whole=True)
    assert measured[2:] == [DEEP]


def test_layers_that_differ_are_all_measured(measured: list[int]) -> None:
    micro = MicroBatch(2, 8, 4)
    found = memory_of(llama(), micro, "fp32", prepare=some)
    assert measured == [DEEP]
    assert found == memory_of(llama(), micro, "fp32", prepare=some, whole=True)


def test_a_shallow_model_is_measured_whole(measured: list[int]) -> None:
    memory_of(llama(num_hidden_layers=SHALLOW + 2), MicroBatch(1, 4, 1), "fp32")
    assert measured == [SHALLOW + 2]


def chain(layers: int, before: list[int], each: list[int], behind: list[int]) -> list[int]:
    """Bytes alive along a pass: what every operation allocates, less what it frees."""
    alive, now = [], 1_000 + 7 * layers  # the weights of each layer
    for change in [0, *before, *each * layers, *behind]:
        now += change
        alive.append(now)
    return alive


@pytest.mark.parametrize(
    "parts",
    [
        ([5, -2], [9, 4, -8], [30, -20]),  # highest at the end
        ([5, 400], [9, 4, -18], [3, -2]),  # highest before the layers
        ([1], [50, -80], [6]),  # in the first layer: each frees more than it takes
        ([1], [90, -89], [0]),  # in the last one
        ([], [50, -57], []),  # as high in every layer, the weights of each counted
    ],
)
def test_the_peak_of_a_chain_is_at_one_of_its_ends(
    parts: tuple[list[int], list[int], list[int]],
) -> None:
    few, more = chain(SHALLOW, *parts), chain(SHALLOW + 1, *parts)
    for layers in (SHALLOW, SHALLOW + 1, 12, 80):
        assert peak(few, more, layers - SHALLOW) == max(chain(layers, *parts))


def test_what_is_no_chain_of_like_layers_has_no_peak() -> None:
    few, more = chain(SHALLOW, [5], [9, 4, -8], [30]), chain(SHALLOW + 1, [5], [9, 4, -8], [30])
    for place in (1, 8, -2):
        other = list(more)
        other[place] += 1
        expected = max(chain(9, [5], [9, 4, -8], [30])) if place == 8 else None
        assert (
            peak(few, other, 5) == expected
        )  # in the layer that one has more, nothing is compared
    assert peak(more, few, 5) is None


def test_layers_are_alike_where_all_but_their_number_is() -> None:
    with torch.device("meta"):
        model = weightless(llama(), torch.float32)
    assert alike(model) == DEEP
    _, last = decoder_layers(model)[-1]
    vars(last.get_submodule("mlp"))["kind"] = "sliding"
    assert alike(model) == 0
    truncate(model, 3)
    assert [name for name, _ in decoder_layers(model)] == [f"model.layers.{i}" for i in range(3)]
    assert alike(model) == 3
    assert alike(nn.Linear(2, 2)) == 0
