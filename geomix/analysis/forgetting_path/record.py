"""The recorded path of one stage of one run: its sums, and the measured change to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomix.config.stage_names import stage_index, stage_title, stage_titles
from geomix.measures.line_integral import PathChange, coarser_trapezoid, path_change
from geomix.runs.directory import RunDirectory
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.index import snapshot_files
from geomix.snapshots.schema import TOTAL, PathRecord, ProbeRecord, Snapshot
from geomix.util.errors import UserError

Floats = NDArray[np.float64]

_RECORD = "train with `record: {preset: path}`"


@dataclass(frozen=True, slots=True)
class RecordedPath:
    """Path of a stage. M parameter tensors, S sets, J parts.

    Attributes:
        model: its last snapshot, which describes the parameters.
        parts: J names, `total` first.
        change: of each set's loss, by both rules, `(M, S, J)` nats.
        coarser: by the trapezoid rule along half as many segments, likewise; None without pairs.
        measured: change of each set's mean loss from the path's start to its end, `(S,)` nats.
        segments: number of segments.
        pairs: how many of the coarser path's segments stand for two.
    """

    model: Snapshot
    parts: tuple[str, ...]
    change: PathChange
    coarser: Floats | None
    measured: Floats
    segments: int
    pairs: int


def last_stage(run: RunDirectory) -> int:
    """Return the index of the last stage that has snapshots.

    Raises:
        UserError: nothing is recorded.
    """
    files = run.snapshots()
    if not files:
        raise UserError(f"{run.path}: no snapshots; {_RECORD}")
    return read_snapshot(files[-1], activations=False).stage


def asked_stage(runs: Sequence[RunDirectory], asked: str) -> int:
    """Return the index, from 0, of the recorded stage given by number, from 1, or by name.

    Raises:
        UserError: no such stage is recorded, or several share its name.
    """
    names: dict[int, set[str]] = {}
    for file in (file for run in runs for arm in run.arms for file in snapshot_files(arm)):
        names.setdefault(file.stage, set()).add(file.stage_name)
    if not names:
        raise UserError(f"{runs[0].path}: no snapshots; {_RECORD}")
    return stage_index(asked, names)


def read_path(run: RunDirectory, stage: int) -> RecordedPath:
    """Sum the path of a stage.

    Args:
        run: without arms, or an arm.
        stage: its index, from 0.

    Raises:
        UserError: the stage has no snapshots, they hold no path or one with a gap, or the loss at
            its start is not recorded.
    """
    shots = {file: read_snapshot(file, activations=False) for file in run.snapshots()}
    here = {file: shot for file, shot in shots.items() if shot.stage == stage and shot.step}
    if not here:
        known = {shot.stage: [shot.stage_name] for shot in shots.values() if shot.step}
        there = f"there are some of stage {stage_titles(known)}" if known else _RECORD
        raise UserError(f"{run.path}: no snapshots within {stage_title(stage)}; {there}")
    before = _start(run, stage, list(shots.values()))
    path = _segments(stage, here)
    model = list(here.values())[-1]
    if model.sets != before.sets:
        where = stage_title(stage, model.stage_name)
        raise UserError(f"{run.path}: the probe sets at the start of {where} are others")
    names, products, pairs = _stacked(path)
    paired = _paired(pairs)
    return RecordedPath(
        model=model,
        parts=names,
        change=path_change(products),
        coarser=coarser_trapezoid(products, pairs) if paired else None,
        measured=np.array([_loss(model, name) - _loss(before, name) for name in model.sets]),
        segments=len(path),
        pairs=paired,
    )


def _start(run: RunDirectory, stage: int, shots: list[Snapshot]) -> Snapshot:
    """Return the snapshot of the stage's initial weights."""
    first = [shot for shot in shots if (shot.stage, shot.step) == (stage, 0)]
    before = [shot for shot in shots if shot.stage == stage - 1]
    done = run.steps_done().get(stage - 1)
    ended = [shot for shot in before if shot.step == (done or shot.steps)]
    if not (found := first + ended):
        raise UserError(
            f"{run.path}: the loss at the start of {stage_title(stage)} is not recorded; "
            "train with `boundaries` in record.at"
        )
    return found[0]


def _segments(stage: int, shots: dict[Path, Snapshot]) -> list[PathRecord]:
    """Return every segment from the stage's start on, checked for gaps."""
    found: list[PathRecord] = []
    at = 0
    for file, shot in shots.items():
        if shot.path is None and shot.no_path == "not asked for":
            raise UserError(f"{file}: it was recorded without `midpoints`; {_RECORD}")
        if shot.path is None or shot.path.from_step != at:
            why = f" ({shot.no_path})" if shot.no_path else ""
            where = stage_title(stage, shot.stage_name)
            raise UserError(
                f"{file}: the path of {where} has a gap between steps {at} and {shot.step}"
                f"{why}; train it again in one go"
            )
        found.append(shot.path)
        at = shot.step
    return found


def _stacked(path: list[PathRecord]) -> tuple[tuple[str, ...], Floats, list[Floats | None]]:
    """Return parts, `(K, M, S, 3, J)` products and the pairs; only the total if parts differ."""
    same = all(segment.parts == path[0].parts for segment in path)
    names = path[0].parts if same else (TOTAL,)
    count = len(names)  # the total is the first of all parts
    products = np.stack([segment.products[..., :count] for segment in path])
    fits = [
        segment.pair is not None and k > 0 and segment.pair_from_step == path[k - 1].from_step
        for k, segment in enumerate(path)
    ]
    pairs = [
        segment.pair[..., :count] if fit and segment.pair is not None else None
        for segment, fit in zip(path, fits, strict=True)
    ]
    return names, products, pairs


def _paired(pairs: list[Floats | None]) -> int:
    """Return how many pairs `coarser_trapezoid` uses."""
    k = count = 0
    while k + 1 < len(pairs):
        found = pairs[k + 1] is not None
        count += found
        k += 2 if found else 1
    return count


def _loss(shot: Snapshot, name: str) -> float:
    """Return a set's mean loss in the run's reduction, in nats."""
    probe: ProbeRecord = shot.probes[name]
    tokens = np.diff(probe.offsets) if shot.reduction == "token" else None
    return float(np.average(probe.loss, weights=tokens))
