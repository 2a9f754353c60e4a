"""`record.weights`: what is kept for analyses is what training had, and leaves no trace on it."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.measure import measure
from geomix.api import Run

RUN = """stages:
  - data: {source: kvr, limit: 6}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 2}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, 1, 2], probes: 3, batch_size: 2, weights: true}
checkpoint: {steps: 1}
evaluate: {epochs: 0}
"""


def copied(geomix: Any, name: str) -> Run:
    """The run that was left alone, which is trained once."""
    if not (geomix.folder / "whole").exists():
        train(geomix, "whole")
    shutil.rmtree(geomix.folder / name, ignore_errors=True)
    shutil.copytree(geomix.folder / "whole", geomix.folder / name)
    return Run(geomix.folder / name)


def train(geomix: Any, name: str, *settings: str) -> Run:
    shutil.rmtree(geomix.folder / name, ignore_errors=True)
    (geomix.folder / f"{name}.yaml").write_text(RUN)
    told = [part for s in (f"model={geomix.model}", *settings) for part in ("--set", s)]
    done = geomix("train", f"{name}.yaml", "--out", name, "--quiet", *told)
    assert done.status == 0, done.err
    return Run(geomix.folder / name)


def kept(run: Run) -> dict[str, str]:
    """Hash of every kept file, by its path in the run."""
    files = sorted(p for p in run.path.glob("stages/*/weights/**/*") if p.is_file())
    return {
        p.relative_to(run.path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
    }


def finals(run: Run) -> list[str]:
    files = sorted(run.path.glob("stages/*/checkpoints/final/model.safetensors"))
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in files]


def test_each_scheduled_moment_within_a_stage_is_kept_and_training_is_the_same(geomix: Any) -> None:
    run, without = copied(geomix, "kept"), train(geomix, "without", "record.weights=false")
    folders = sorted({str(Path(name).parent) for name in kept(run)})
    assert folders == [
        f"stages/{s}/weights/step-{n:06d}" for s in ("0-kvr", "1-arithmetic") for n in (1, 2)
    ]
    assert len(finals(run)) == 2
    assert finals(run) == finals(without)
    assert not kept(without)
    assert len({kept(run)[f"{folder}/model.safetensors"] for folder in folders}) == 4


def test_from_what_is_kept_a_snapshot_is_made_again_to_the_bit(geomix: Any) -> None:
    run = copied(geomix, "again")
    lost = {path: path.read_bytes() for path in run.snapshots() if path.stem[-1] in "12"}
    assert len(lost) == 4
    for path in lost:
        path.unlink()
    done = geomix("record", "again")
    assert done.status == 0, done.err
    for path, content in lost.items():
        assert path.read_bytes() == content


def test_a_killed_run_keeps_the_same(geomix: Any) -> None:
    """Killed where the weights of a moment are kept, and where a snapshot is written."""
    whole = copied(geomix, "unharmed")
    begin = ["train", "killed.yaml", "--out", "killed", "--set", f"model={geomix.model}"]
    (geomix.folder / "killed.yaml").write_text(RUN)
    killed, going_on = Run(geomix.folder / "killed"), ["train", "--resume", "killed"]
    for command, where in (
        (begin, "0-kvr/weights/step-000002"),
        (going_on, "stage1-step000001"),
    ):
        done = geomix(*command, "--quiet", at=[(where, 1, signal.SIGKILL)])
        assert done.status == -signal.SIGKILL
        assert len(kept(killed)) < len(kept(whole))
    done = geomix(*going_on, "--quiet")
    assert done.status == 0, done.err
    assert kept(killed) == kept(whole)
    assert not list(killed.path.rglob("*.partial*"))


def test_adapters_are_refused_with_one_line(geomix: Any) -> None:
    (geomix.folder / "lora.yaml").write_text(RUN)
    asked = ["--set", f"model={geomix.model}", "--set", "train.lora={rank: 2}"]
    done = geomix("train", "lora.yaml", "--out", "lora", *asked)
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert "record.weights" in line
    assert "adapters" in line
    assert not (geomix.folder / "lora").exists()


def test_a_damaged_one_is_named(geomix: Any) -> None:
    run = copied(geomix, "hurt")
    file = run.path / "stages" / "1-arithmetic" / "weights" / "step-000001" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    done = geomix("analyze", "grad-angle", "hurt")
    assert done.status == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("geomix:")]
    assert "model.safetensors is damaged" in line
    with h5py.File(run.snapshots()[0]) as snapshot:  # and the record is as it was
        assert np.isfinite(snapshot["parameters/inner_products"][:]).all()
    assert set(measure([run], Asked(source="record")).arms[0].sources) == {"record"}
