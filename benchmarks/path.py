"""Share of the forgetting that the recorded path explains, and the path's cost.

Trains the demo's plain arm on the built-in model, smaller, with `record: {preset: path}`; then the
change of each probe set's loss over stage 2 beside the sums over the files by Simpson's rule and
the trapezoid rule. Also the split by source and by module, and the seconds of a training with and
without the path.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomix.api import Run
from geomix.measures.line_integral import path_change
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.schema import Snapshot

CONFIG = """name: path
model: builtin
train: {loss: example, update_shares: true}
stages:
  - data: {source: kvr, limit: 32}
    stop: {epochs: 25}
    train: {lr: 4e-3, batch_size: 16}
  - data: {source: triples, limit: 32}
    stop: {epochs: 30}
    replay: 0.1
    train: {lr: 1e-3, batch_size: 32, weight_decay: 0.01}
record: {preset: path, probes: 32}
evaluate: {epochs: 0}
checkpoint: {minutes: null}
"""


def trained(folder: Path, name: str, *settings: str) -> tuple[Run, float]:
    """Run a training, and return it with its CPU seconds."""
    file = folder / "path.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    given = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "geomix", "train", str(file), "--out", str(folder / name)]
    before = children()
    subprocess.run([*command, "--quiet", *given], check=True)
    return Run(folder / name), children() - before


def children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def passes(folder: Path) -> tuple[int, int]:
    """Return the examples that pass forward and backward, recording and training, by a dry run."""
    command = [sys.executable, "-m", "geomix", "train", str(folder / "path.yaml"), "--dry-run"]
    found = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    (arm,) = found["cost"]["arms"].values()
    return arm["record"]["passes"], arm["record"]["training"]


def mean_loss(snapshot: Snapshot, name: str) -> float:
    """Return the loss in the run's reduction, `example`."""
    return float(snapshot.probes[name].loss.mean())


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run, seconds = trained(Path(scratch), "path")
        _, alone = trained(Path(scratch), "alone", "record=null", "train.update_shares=false")
        recorded, trained_on = passes(Path(scratch))
        shots = [read_snapshot(file) for file in run.snapshots()]
        first = [s for s in shots if s.stage == 0][-1]
        later = [s for s in shots if s.stage == 1]
        pieces = np.stack([s.path.products for s in later if s.path is not None])
        assert len(pieces) == len(later)
        weight = sum(file.stat().st_size for file in run.snapshots()) / 1e6
    print(
        f"{len(shots)} snapshots, {weight:.0f} MB; training {seconds:.0f} CPU s, alone {alone:.0f}"
    )
    print(
        f"{recorded:,} example passes beside {trained_on:,} of training: "
        f"{recorded / trained_on:.2f} of its time if all cost alike; measured "
        f"{seconds / alone - 1:.2f}, with what every process takes to start"
    )
    change = path_change(pieces)
    parts = later[0].path.parts if later[0].path else ()
    print(f"set      measured    Simpson  trapezoid   error      by part: {', '.join(parts[1:])}")
    for index, name in enumerate(first.sets):
        measured = mean_loss(later[-1], name) - mean_loss(first, name)
        total = change.simpson[:, index, 0].sum()
        rough = change.trapezoid[:, index, 0].sum()
        split = " ".join(f"{x:+.4f}" for x in change.simpson[:, index, 1:].sum(axis=0))
        error = 100 * abs(total / measured - 1)
        print(f"{name:9}{measured:+.5f}  {total:+.5f}  {rough:+.5f}  {error:6.3f} %   {split}")
    print("D_A by module (Simpson): " + modules(later[0], change.simpson[:, 0, 0]))


def modules(snapshot: Snapshot, values: NDArray[np.float64]) -> str:
    """Return the largest sums over the layers, module by module."""
    sums: dict[str, float] = {}
    for name, value in zip(snapshot.parameter_modules, values, strict=True):
        sums[name] = sums.get(name, 0.0) + float(value)
    order = sorted(sums, key=lambda name: -abs(sums[name]))
    return ", ".join(f"{name} {sums[name]:+.3f}" for name in order[:6])


if __name__ == "__main__":
    main()
