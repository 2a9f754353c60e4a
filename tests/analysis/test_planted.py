"""Angles planted in one place: the command finds them there, then, and nowhere else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from geomix.api import Run
from geomix.cli import main
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import file_name, write_snapshot
from geomix.training.observer import TrainingEvent

Make = Callable[..., Any]
LAYERS = 2
PLACES = ["embedding", "layer 1", "layer 2", "final norm", "head"]
MOMENTS = {(0, 0): "θ_0", (0, 40): "θ_A", (1, 1): "θ_A+1", (1, 20): "θ_B"}


def reported(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of D_A and D_B in the command's JSON, by moment and group."""
    result = CliRunner().invoke(main, ["analyze", "grad-angle", str(run), "--json"])
    assert result.exit_code == 0, result.output
    return {
        (row["moment"], row["group"]): row
        for row in json.loads(result.stdout)["rows"]
        if (row["first"], row["second"]) == ("D_A", "D_B")
        and row.get("metric", "euclidean") == "euclidean"
    }


def with_cosine(a: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """A vector of another length at this angle to `a`."""
    across = rng.normal(size=len(a))
    across -= a * (across @ a) / (a @ a)
    across *= np.linalg.norm(a) / np.linalg.norm(across)
    return np.asarray(1.7 * (cosine * a + np.sqrt(1 - cosine**2) * across))


@pytest.mark.parametrize(
    ("planted", "elsewhere", "shift"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if odd % 2 else [])
        for odd, case in (
            (i + j + k, (planted, elsewhere, shift))
            for i, planted in enumerate((-1.0, 0.0, 1.0))
            for j, elsewhere in enumerate(("random", 0.3))
            for k, shift in enumerate((0, 2))
        )
    ],
)
@pytest.mark.usefixtures("unprinted")
def test_the_command_finds_the_layer_and_only_it(
    tmp_path: Path,
    parameters: Make,
    write_arm: Make,
    planted: float,
    elsewhere: str | float,
    shift: int,
) -> None:
    """Independent: explicit vectors; at each moment another place has the planted angle."""
    places = parameters(LAYERS, tied=False)
    here = dict(zip(MOMENTS, (PLACES[shift:] + PLACES[:shift])[: len(MOMENTS)], strict=True))
    known: dict[tuple[str, str], float] = {}
    pairs: dict[tuple[int, int], dict[str, tuple[np.ndarray, np.ndarray]]] = {}

    def place_of(layer: int, module: str) -> str:
        behind = {"norm": "final norm", "lm_head": "head"}
        return "embedding" if layer == 0 else behind.get(module, f"layer {layer}")

    for k, (when, chosen) in enumerate(here.items()):
        rng = np.random.default_rng([k, shift])
        pairs[when] = {}
        for place in PLACES:
            names = [n for n, (at, module, _) in places.items() if place_of(at, module) == place]
            ends = np.cumsum([places[n][2] for n in names])
            a = rng.normal(size=ends[-1])
            other = rng.uniform(-0.8, 0.8) if elsewhere == "random" else float(elsewhere)
            cosine = planted if place == chosen else other
            b = with_cosine(a, cosine, rng)
            known[MOMENTS[when], place] = cosine
            for name, one, two in zip(
                names, np.split(a, ends[:-1]), np.split(b, ends[:-1]), strict=True
            ):
                pairs[when][name] = one, two

    def draw(name: str, stage: int, step: int) -> dict[str, np.ndarray]:
        second = int(name == "D_B")
        return {p: pair[second] for p, pair in pairs[stage, step].items()}

    write_arm(tmp_path, draw, sets=("D_A", "D_B"), layers=LAYERS, tied=False)
    found = {key: row for key, row in reported(tmp_path).items() if key[1] != "all"}
    assert {key: row["cosine"] for key, row in found.items()} == pytest.approx(known, abs=1e-12)
    exactly = {key for key, row in found.items() if abs(row["cosine"] - planted) < 1e-9}
    assert exactly == {(MOMENTS[when], place) for when, place in here.items()}
    for key in exactly:
        degrees = {-1.0: 180, 0.0: 90, 1.0: 0}[planted]
        assert found[key]["angle_degrees"] == pytest.approx(degrees, abs=1e-5)


def untied() -> Any:
    """A random Llama whose head is a tensor of its own."""
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LlamaForCausalLM(config)


def texts(tokens: range, seed: int) -> list[TokenisedExample]:
    """Random examples of these tokens alone."""
    choose = random.Random(seed)
    made = []
    for _ in range(8):
        ids = tuple(choose.choice(tokens) for _ in range(choose.randint(4, 9)))
        made.append(TokenisedExample(ids, (IGNORED, IGNORED, *ids[2:]), Example("p", "t")))
    return made


@pytest.mark.usefixtures("unprinted")
def test_sets_without_a_common_token_are_orthogonal_in_the_embedding_alone(
    tmp_path: Path, write_run: Make
) -> None:
    """By construction: a row of the embedding has a gradient from its own token only."""
    run: Run = write_run(tmp_path)
    sets = {"D_A": texts(range(1, 20), 0), "D_B": texts(range(20, 40), 1)}
    recorder = Recorder(run.path, sets, [], reduction="example", batch_size=3, pad_id=0)
    snapshot = recorder.snapshot(TrainingEvent(untied(), 0, "kvr", 0, 10, 0, None))
    write_snapshot(run.snapshot_folder / file_name(0, 0), snapshot)
    found = {group: row for (_, group), row in reported(run.path).items()}
    assert list(found) == ["all", *PLACES]
    assert found["embedding"]["cosine"] == 0
    assert found["embedding"]["angle_degrees"] == pytest.approx(90)
    assert min(found["embedding"]["norm_first"], found["embedding"]["norm_second"]) > 0
    assert all(abs(row["cosine"]) > 1e-3 for group, row in found.items() if group != "embedding")
