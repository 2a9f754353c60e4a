"""Tiny random models and examples for the recorder's tests."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from geomix.api import Run, open_run
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.recording.recorder import Recorder
from geomix.training.observer import SecondMoments, TrainingEvent

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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def moment() -> Callable[..., TrainingEvent]:
    """`moment(model, stage=0, step=0, steps=4)`."""

    def make(model: nn.Module, stage: int = 0, step: int = 0, steps: int = 4) -> TrainingEvent:
        return TrainingEvent(model, stage, "kvr", step, steps, 0, None)

    return make


@pytest.fixture(scope="session")
def resolved() -> Callable[..., Run]:
    """`resolved(folder, arms=None)` makes a run that holds nothing but its configuration."""

    def make(folder: Path, arms: list[str] | None = None) -> Run:
        folder.mkdir(parents=True, exist_ok=True)
        found = {"name": "run", "hash": "0", "config": {"seed": 0, "stages": []}, "arms": arms}
        Run(folder).resolved_file.write_text(json.dumps(found))
        return open_run(folder)

    return make


@pytest.fixture
def run(recorded: Run, tmp_path: Path) -> Run:
    """A copy of `recorded`, which a test may change."""
    return open_run(shutil.copytree(recorded.path, tmp_path / "run"))


@pytest.fixture(scope="session")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, resolved: Any, llama: Any, examples: Any, moment: Any
) -> Run:
    """Three snapshots of two stages, the second of which trains the last layer alone.

    All that there can be is kept; Adam's second moments are known at the second snapshot.
    """
    made: Run = resolved(tmp_path_factory.mktemp("recorded") / "run")
    recorder = Recorder(
        made.snapshot_folder,
        {"D_A": examples(5, 1), "D_B": examples(4, 2)},
        at=[0, 3, 4],
        reduction="token",
        batch_size=3,
        pad_id=0,
        capture="hooks",
        activations=3,
        lens=True,
        modules=["*.mlp", "*.mlp.gate_proj"],
        gradients=True,
        midpoints=True,
    )
    model = llama()
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    for stage, step in ((0, 0), (0, 4), (1, 3)):
        (made.path / "stages" / f"{stage}-{'ab'[stage]}-set").mkdir(parents=True, exist_ok=True)
        for name, parameter in model.named_parameters():
            parameter.data += 0.01
            parameter.requires_grad_(stage == 0 or "layers.1" in name)
        second = SecondMoments(0, 4, 1e-8, lambda: ones) if step == 4 else None
        recorder.observe(replace(moment(model, stage, step), second_moments=second))
    return made


@pytest.fixture(scope="session")
def arrays() -> Callable[[Path], dict[str, Any]]:
    """`arrays(path)`: every dataset of a file by its path, as h5py alone reads it."""

    def of(path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                text = h5py.check_string_dtype(item.dtype) is not None
                found[name] = item.asstr()[...] if text else item[...]

        with h5py.File(path) as file:
            file.visititems(take)
        return found

    return of
