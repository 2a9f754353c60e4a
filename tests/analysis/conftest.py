"""Runs whose gradients are made by hand, so that every angle is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.api import Run
from geomix.snapshots.file import file_name, write_snapshot
from geomix.snapshots.schema import ProbeRecord, Snapshot
from tests.analysis.calls import unprint

SETS = ("D_A", "D_B", "D_M", "held-out")
MOMENTS = ((0, 0, 40), (0, 40, 40), (1, 1, 20), (1, 20, 20))
"""Stage, step and the stage's steps: θ_0, θ_A, θ_A+1, θ_B."""

Gradient = dict[str, NDArray[np.float64]]
"""One set's gradient: parameter name → its flat gradient."""

Draw = Callable[[str, int, int], Gradient]
"""`(set, stage, step)` → that set's gradient there."""


def _parameters(layers: int, tied: bool = True) -> dict[str, tuple[int, str, int]]:
    """Name → layer, module, size, as a small Llama has them."""
    found = {"model.embed_tokens.weight": (0, "embed_tokens", 12)}
    for layer in range(layers):
        for module, size in (("self_attn.q_proj", 8), ("mlp.up_proj", 10), ("input_layernorm", 4)):
            found[f"model.layers.{layer}.{module}.weight"] = (layer + 1, module, size)
    found["model.norm.weight"] = (layers + 1, "norm", 4)
    if not tied:
        found["lm_head.weight"] = (layers + 1, "lm_head", 12)
    return found


def _random_gradients(layers: int = 3, seed: int = 0, tied: bool = True) -> Draw:
    """Independent normal gradients, another draw for every set, stage and step."""

    def draw(name: str, stage: int, step: int) -> Gradient:
        key = [seed, stage, step, *name.encode()]
        rng = np.random.default_rng(key)
        return {p: rng.normal(size=n) for p, (_, _, n) in _parameters(layers, tied).items()}

    return draw


def _snapshot(
    draw: Draw,
    sets: Sequence[str],
    stage: int,
    step: int,
    steps: int,
    layers: int,
    tied: bool = True,
) -> Snapshot:
    """A snapshot whose inner products are those of `draw`'s gradients."""
    places = _parameters(layers, tied)
    gradients = [draw(name, stage, step) for name in sets]
    inner = np.array([[[a[p] @ b[p] for b in gradients] for a in gradients] for p in places])
    none = np.zeros(0, dtype=np.int64)
    probe = ProbeRecord(
        loss=np.zeros(0),
        exact=np.zeros(0, dtype=np.bool_),
        offsets=np.zeros(1, dtype=np.int64),
        positions=none,
        targets=none,
        activations=None,
        gradients=None,
    )
    return Snapshot(
        stage=stage,
        stage_name=f"stage-{stage}",
        step=step,
        steps=steps,
        reduction="example",
        sets=tuple(sets),
        probes=dict.fromkeys(sets, probe),
        parameters=tuple(places),
        sizes=np.array([size for _, _, size in places.values()]),
        parameter_layers=np.array([layer for layer, _, _ in places.values()]),
        parameter_modules=tuple(module for _, module, _ in places.values()),
        inner_products=inner,
        layers=layers,
        tied_head=tied,
        trainable=len(places),
        unreached=np.zeros((len(places), len(sets)), dtype=np.bool_),
    )


def _write_arm(
    folder: Path,
    draw: Draw,
    sets: Sequence[str] = SETS,
    layers: int = 3,
    tied: bool = True,
    moments: Sequence[tuple[int, int, int]] = MOMENTS,
    probes: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """A run without arms: `resolved.json` and one snapshot a `(stage, step, steps)`."""
    _write_run(folder)
    for stage, step, steps in moments:
        taken = _snapshot(draw, sets, stage, step, steps, layers, tied)
        write_snapshot(Run(folder).snapshot_folder / file_name(stage, step), taken)
    if probes:
        texts = {s: {"n": n, "of": of, "examples": []} for s, (n, of) in probes.items()}
        Run(folder).probes_file.write_text(json.dumps(texts))


def _write_run(folder: Path, arms: Sequence[str] | None = None, seed: int = 0) -> Run:
    """A run directory that holds nothing but its resolved configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": seed, "stages": []}
    text = json.dumps({"name": folder.name, "hash": "0", "config": config, "arms": arms})
    Run(folder).resolved_file.write_text(text)
    return Run(folder)


@pytest.fixture(scope="session")
def parameters() -> Callable[..., dict[str, tuple[int, str, int]]]:
    """`(layers, tied=True)` → name → layer, module, size."""
    return _parameters


@pytest.fixture(scope="session")
def random_gradients() -> Callable[..., Draw]:
    """`(layers=3, seed=0, tied=True)` → a draw of independent gradients."""
    return _random_gradients


@pytest.fixture(scope="session")
def write_arm() -> Callable[..., None]:
    """`(folder, draw, sets, layers, tied, moments, probes)` writes a run without arms."""
    return _write_arm


@pytest.fixture
def unprinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not laid out, and their files are empty: `tests/figures` has them."""
    unprint(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure of the table of angles is drawn, which takes longer than all the rest."""
    monkeypatch.setattr("geomix.analysis.grad_angle.outputs._figures", lambda *_: ())


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Run]:
    """`(folder, arms, seed)` writes a run's resolved configuration alone."""
    return _write_run
