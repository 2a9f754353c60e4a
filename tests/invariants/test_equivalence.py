"""Settings that change how a run is computed, and not what: the same trajectory, step by step.

Each pair of runs goes through the command line. Where the order of additions differs, losses agree
to 1e-5; where nothing that is trained on may be touched, everything agrees to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geomix.api import Run
from geomix.snapshots.file import read_snapshot

RUN = """stages:
  - data: {source: facts.jsonl, limit: 12}
    mix: {source: random-words, ratio: 1, words: 3}
    stop: {epochs: 6}
  - data: {source: arithmetic, limit: 10}
    replay: 0.5
    stop: {epochs: 2}
train: {lr: 3e-3, batch_size: 8}
record: null
evaluate: {epochs: 0}
"""
"""3 steps × 6 epochs, then 2 × 2, of several sources."""

STEPS = 22

BRIEF = ("stages.0.data.limit=8", "stages.0.stop.epochs=2", "stages.1.stop.epochs=1")
"""A short run, for what must agree to the bit however little was learnt."""
BRIEF_STEPS = 2 * 2 + 2

FACTS = "".join(
    json.dumps({"prompt": f"Fact {i}?", "target": "so it is " * (i % 4 * 3 + 1)}) + "\n"
    for i in range(12)
)
"""Facts of such lengths that a short one shares its row with others, where that is allowed."""

LOSS = 1e-5
"""Largest relative difference of two losses where float32 is added in another order."""

WEIGHT = 2e-4
"""Largest difference of two weights then; 22 steps at 3e-3 move one by up to 0.05."""

Trained = Callable[..., Run]


@pytest.fixture(scope="module")
def trained(geomix: Any, tiny_model: Path) -> Trained:
    """Gives the run with some keys set; each is trained once. By default it draws no dropout."""
    (geomix.folder / "run.yaml").write_text(RUN)
    (geomix.folder / "facts.jsonl").write_text(FACTS)
    known: dict[tuple[str, ...], Run] = {}

    def train(*keys: str, model: Path = tiny_model) -> Run:
        settings = (f"model={model}", *keys)
        if settings not in known:
            out = f"run-{len(known)}"
            given = [part for key in settings for part in ("--set", key)]
            done = geomix("train", "run.yaml", "--out", out, *given)
            assert done.status == 0, done.err
            known[settings] = Run(geomix.folder / out)
        return known[settings]

    return train


def losses(run: Run) -> Tensor:
    """Losses of all steps, `(steps,)`."""
    found = [line["loss"] for line in run.metrics() if line["event"] == "step"]
    assert len(found) in (STEPS, BRIEF_STEPS)
    return torch.tensor(found, dtype=torch.float64)


def finals(run: Run) -> list[Path]:
    return sorted(run.path.glob("stages/*/checkpoints/final"))


def weights(run: Run) -> list[dict[str, Tensor]]:
    """After each stage."""
    found = [load_file(folder / "model.safetensors") for folder in finals(run)]
    assert len(found) == 2
    return found


def assert_close(one: Run, other: Run) -> None:
    """The same losses to 1e-5 and nearly the same weights, though not computed in the same way."""
    a, b = losses(one), losses(other)
    assert float(((a - b) / a).abs().max()) < LOSS
    for left, right in zip(weights(one), weights(other), strict=True):
        assert left.keys() == right.keys()
        assert 0 < max(float((left[name] - right[name]).abs().max()) for name in left) < WEIGHT
    assert float(a[0]) > 1.2 * float(a[17]), "nothing was learnt that could differ"


def assert_same_bits(one: Run, other: Run, *, lines: Callable[[dict[str, Any]], bool]) -> None:
    """Weights and second moments after each stage, and those lines of the metrics."""
    assert len(finals(one)) == len(finals(other)) == 2
    for left, right in zip(finals(one), finals(other), strict=True):
        tensors = sorted(file.name for file in left.glob("*.safetensors"))
        assert {"adam_second_moments.safetensors", "model.safetensors"} <= set(tensors)
        for name in tensors:
            assert (left / name).read_bytes() == (right / name).read_bytes(), name
    kept = [[line for line in run.metrics() if lines(line)] for run in (one, other)]
    assert kept[0] == kept[1]
    assert kept[0]


def every(line: dict[str, Any]) -> bool:
    return True


@pytest.mark.parametrize("size", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_batch_is_the_same_in_pieces(trained: Trained, size: int) -> None:
    """8 examples at once, or one after the other, or in pieces that do not divide it."""
    whole = ("train.loss=token", "train.pack=null")
    assert_close(trained(*whole), trained(*whole, f"train.micro_batch_size={size}"))


@pytest.mark.parametrize("loss", ["token", "example"])
def test_packed_rows_are_the_same_as_padded_ones(trained: Trained, loss: str) -> None:
    reduction = f"train.loss={loss}"
    assert_close(trained(reduction, "train.pack=null"), trained(reduction, "train.pack=96"))


def test_the_reductions_differ(trained: Trained) -> None:
    """So that the tests above tell them apart."""
    token, example = (trained(f"train.loss={x}", "train.pack=null") for x in ("token", "example"))
    assert float((losses(token) / losses(example) - 1).abs().max()) > 1e-3


@pytest.mark.slow
def test_recording_changes_no_bit(trained: Trained, dropout_model: Path) -> None:
    """A model whose training draws random numbers is recorded with a snapshot after every step."""
    record = 'record={at: ["every:1"], probes: 4, activations: 2}'
    recorded = trained(*BRIEF, record, model=dropout_model)
    assert len(recorded.snapshots()) == BRIEF_STEPS + 1
    assert_same_bits(trained(*BRIEF, model=dropout_model), recorded, lines=every)


@pytest.mark.parametrize("scratch", ["disk", pytest.param("memory", marks=pytest.mark.slow)])
def test_recording_everything_changes_no_bit(
    trained: Trained, dropout_model: Path, scratch: str
) -> None:
    """Every key of the recorder switched on, and the parts of each update; weights decay."""
    keys = (
        'preset: path, probes: 4, activations: 2, lens: true, gradients: true, modules: ["*.mlp"]'
    )
    shares = (*BRIEF, "train.update_shares=true", "train.weight_decay=0.1")
    off = trained(*shares, model=dropout_model)
    on = trained(*shares, f"record={{{keys}, scratch: {scratch}}}", model=dropout_model)
    assert_same_bits(off, on, lines=every)
    files = on.snapshots()
    assert len(files) == BRIEF_STEPS + 1
    assert {file.name for file in files} == {file.name for file in files[0].parent.iterdir()}
    for file in files:
        snapshot = read_snapshot(file)
        assert (snapshot.path is None) == (snapshot.adam is None) == (snapshot.step == 0)
        assert all(record.lens_rank is not None for record in snapshot.probes.values())
        assert all(len(record.modules) == 2 for record in snapshot.probes.values())
        if snapshot.path is None or snapshot.adam is None:
            continue
        sources = {0: {"D_A", "D_M"}, 1: {"D_B", "replay"}}[snapshot.stage]
        assert set(snapshot.path.parts) == {"total", "decay"} | sources
        assert (snapshot.path.from_step, snapshot.path.to_step) == (
            snapshot.step - 1,
            snapshot.step,
        )
        total, parts = snapshot.path.products[..., 0], snapshot.path.products[..., 1:].sum(-1)
        assert np.abs(parts - total).sum() < 1e-3 * np.abs(total).sum()
        assert (snapshot.adam.stage, snapshot.adam.step) == (snapshot.stage, snapshot.step)
        assert np.isfinite(snapshot.adam.products).all()


def test_evaluating_changes_no_bit(trained: Trained, dropout_model: Path) -> None:
    """Every epoch or at the boundaries only: what is measured at both is the same too."""
    seldom = trained(*BRIEF, model=dropout_model)
    often = trained(*BRIEF, "evaluate.epochs=1", model=dropout_model)
    count = [sum(line["event"] == "evaluation" for line in r.metrics()) for r in (seldom, often)]
    assert count[0] < count[1]
    assert_same_bits(seldom, often, lines=lambda line: line.get("moment") != "epoch")


def test_logging_shares_of_the_update_changes_no_bit(trained: Trained, dropout_model: Path) -> None:
    shared = trained(*BRIEF, "train.update_shares=true", model=dropout_model)
    plain = trained(*BRIEF, model=dropout_model)
    assert_same_bits(plain, shared, lines=lambda line: line["event"] == "evaluation")


def test_activations_that_are_computed_again_are_the_same(
    trained: Trained, dropout_model: Path
) -> None:
    """The same units are dropped the second time."""
    again = trained(*BRIEF, "train.gradient_checkpointing=true", model=dropout_model)
    assert_same_bits(trained(*BRIEF, model=dropout_model), again, lines=every)


def test_saving_changes_no_bit(trained: Trained, dropout_model: Path) -> None:
    saved = trained(*BRIEF, "checkpoint.steps=1", model=dropout_model)
    assert_same_bits(trained(*BRIEF, model=dropout_model), saved, lines=every)


def test_a_seed_is_a_trajectory(trained: Trained, dropout_model: Path) -> None:
    """The same one gives the same bits in another process, another one other losses."""
    again, other = (trained(*BRIEF, f"seed={seed}", model=dropout_model) for seed in (0, 1))
    first = trained(*BRIEF, model=dropout_model)
    assert again.path != first.path
    assert_same_bits(first, again, lines=every)
    assert bool((losses(again) != losses(other)).all())
    for left, right in zip(weights(again), weights(other), strict=True):
        assert all(not torch.equal(left[name], right[name]) for name in left)
