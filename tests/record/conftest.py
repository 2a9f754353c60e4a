"""Tiny random models and examples for the recorder's tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.train.events import Moment

VOCABULARY = 41


def random_weights(model: Any) -> Any:
    """Draw every parameter anew: zero biases and norms of one would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def gpt2() -> Callable[[], Any]:
    """Makes the same GPT-2 with dropout, each time it is called; in training mode."""

    def make() -> Any:
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=24,
            n_embd=16,
            n_layer=3,
            n_head=2,
            bos_token_id=1,
            eos_token_id=1,
        )
        return random_weights(GPT2LMHeadModel(config)).train()

    return make


@pytest.fixture
def llama() -> Callable[[], Any]:
    """Makes the same tied Llama each time it is called; in training mode."""

    def make() -> Any:
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        return random_weights(LlamaForCausalLM(config)).train()

    return make


@pytest.fixture
def examples() -> Callable[[int, int], list[TokenisedExample]]:
    """`examples(n, seed)`: examples of different lengths, some with a target of one token."""

    def make(n: int, seed: int) -> list[TokenisedExample]:
        choose = random.Random(seed)
        made = []
        for _ in range(n):
            prompt, target = choose.randint(1, 9), choose.randint(1, 5)
            ids = tuple(choose.randrange(2, VOCABULARY) for _ in range(prompt + target))
            labels = (IGNORED,) * prompt + ids[prompt:]
            made.append(TokenisedExample(ids, labels, Example("prompt", "target")))
        return made

    return make


@pytest.fixture
def moment() -> Callable[..., Moment]:
    """`moment(model, stage=0, step=0, steps=4)`."""

    def make(model: nn.Module, stage: int = 0, step: int = 0, steps: int = 4) -> Moment:
        return Moment(model, stage, "kvr", step, steps, 0, None)

    return make
