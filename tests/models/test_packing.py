"""Packed equals alone, on every family of models; where it does not, that is detected."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from geomix.data.batch import Batch, collate, token_weights
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.models.forward import backward_over, plain_forward
from geomix.models.packing import packs

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "sliding_window": 8},
    "Gemma3Text": {"head_dim": 8, "sliding_window": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "GPTNeoX": {},
    "Phi": {},
    "Olmo2": {},
    "Mixtral": {"num_local_experts": 3},
}
APART: dict[str, dict[str, Any]] = {
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32, "activation_function": "gelu"},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Mamba": {"state_size": 4},
}
"""Families whose rows hold one example: their attention does not read positions, or has none."""


def model_of(family: str, **keys: Any) -> Any:
    if family == "GPT2":
        sizes = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1}
    else:
        sizes = {key: value for key, value in SIZES.items() if key != "pad_token_id" or value}
    name = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(
        family, f"{family}ForCausalLM"
    )
    config = getattr(transformers, f"{family}Config")(**sizes, **(FAMILIES | APART)[family], **keys)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, name)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # attention that looks at content, biases that count
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def examples(count: int, seed: int) -> list[TokenisedExample]:
    """Lengths from 2 to 30 tokens; some have loss on two stretches, as conversations do."""
    choose = random.Random(seed)
    made = []
    for number in range(count):
        prompt, target = choose.randint(1, 20), choose.randint(1, 10)
        ids = tuple(choose.randrange(2, VOCABULARY) for _ in range(prompt + target))
        labels = [IGNORED] * prompt + list(ids[prompt:])
        if number % 3 == 0 and prompt > 3:
            labels[2] = ids[2]
        made.append(TokenisedExample(ids, tuple(labels), Example("p", "t")))
    return made


def alone(model: Any, example: TokenisedExample) -> Tensor:
    """Logits that predict the labels: one sequence, no padding, no positions, no mask."""
    logits: Tensor = model(input_ids=torch.tensor([example.ids])).logits[0]
    return logits[[i - 1 for i, label in enumerate(example.labels) if label != IGNORED]]


def check(model: Any, data: list[TokenisedExample], width: int | None) -> Batch:
    """Logits and gradients, per parameter tensor, against one sequence at a time."""
    weights = token_weights(data, "example")
    expected = [alone(model, example) for example in data]
    terms = [
        nn.functional.cross_entropy(logits, labels, reduction="sum") * weight
        for logits, example, weight in zip(expected, data, weights, strict=True)
        for labels in [torch.tensor([x for x in example.labels if x != IGNORED])]
    ]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        torch.stack(terms).sum(), list(model.parameters()), allow_unused=True
    )
    batch = collate(data, weights, 0, width)
    ((_, logits),) = backward_over(plain_forward(model), iter([batch]))
    whole = torch.cat(expected).detach()
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        if gradient is None:
            assert parameter.grad is None, name
            continue
        error = (parameter.grad - gradient).norm()
        # A key's bias has no gradient but rounding's.
        assert error < 1e-5 * gradient.norm() or error < 1e-7 * norm, f"{name}: {error}"
    return batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_and_gradients_are_those_of_the_examples_one_by_one(
    family: str, attention: str
) -> None:
    """Independent: each example alone, as transformers runs it without positions and padding."""
    if family == "Gemma2" and attention == "sdpa":
        pytest.skip("transformers has no sdpa for Gemma 2")
    model = model_of(family, attn_implementation=attention)
    assert packs(model, 2, VOCABULARY - 1)
    batch = check(model, examples(12, 0), 64)
    assert len(batch.ids) < 12, "several examples share a row"
    assert (batch.positions[:, 1:] <= batch.positions[:, :-1]).any()


@pytest.mark.parametrize("family", FAMILIES | APART)
def test_padding_changes_nothing_either(family: str) -> None:
    check(model_of(family, attn_implementation="eager"), examples(5, 1), None)


@pytest.mark.parametrize("family", APART)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_families_that_would_mix_the_examples_of_a_row_are_found_out(
    family: str, dtype: torch.dtype
) -> None:
    model = model_of(family, attn_implementation="eager").to(dtype)
    assert not packs(model, 2, VOCABULARY - 1)


def test_a_row_that_is_seen_as_one_text_is_found_out_by_a_wide_margin() -> None:
    """The trap that transformers leaves open: with a key-value cache, packed rows are one text."""
    model = model_of("Llama", attn_implementation="sdpa")
    plain = type(model).forward

    class Cached(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> Any:
            assert not use_cache
            return plain(self, input_ids=input_ids, position_ids=position_ids, use_cache=True)

    assert packs(model, 2, VOCABULARY - 1)
    model.__class__ = Cached
    assert not packs(model, 2, VOCABULARY - 1)


def test_a_neighbour_that_only_shifts_the_positions_is_found_out() -> None:
    model = model_of("GPT2", attn_implementation="eager")
    plain = type(model).forward

    class Shifted(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, position_ids: Tensor, **_: Any) -> Any:
            first = position_ids[0, 0] + (position_ids.shape[1] > position_ids.max() + 1)
            return plain(self, input_ids=input_ids, position_ids=position_ids + first)

    model.__class__ = Shifted
    assert not packs(model, 2, VOCABULARY - 1)


def test_half_precision_weights_pack_too() -> None:
    model = model_of("Llama", attn_implementation="sdpa").to(torch.bfloat16)
    assert packs(model, 2, VOCABULARY - 1)
