"""Angles of one or several runs, grouped over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geomix.analysis.base import Log
from geomix.analysis.checkpoints import NamedCheckpoint, as_asked, chosen
from geomix.analysis.directions import rank
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.pair import Pair
from geomix.analysis.grad_angle.result import ArmAngles, GradAngle, Secants
from geomix.analysis.grad_angle.sources import (
    ArmMeasurements,
    arm_measurements,
    check_asked,
    known_checkpoints,
    pasts_of,
)
from geomix.analysis.measurement import Measurement
from geomix.analysis.parameter_groups import Layout
from geomix.analysis.partial_results import Unfinished
from geomix.analysis.replicates import check_tokenizers, replicates, seed_of
from geomix.measures.cosine import Floats
from geomix.measures.verdict import Rule
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.reading import read_json

if TYPE_CHECKING:
    from geomix.experiments.checkpoints import Revisit


def measure(
    runs: Sequence[RunDirectory], asked: Asked | None = None, log: Log = lambda _: None
) -> GradAngle:
    """Return the angles of `measured` alone."""
    return measured(runs, asked or Asked(), log)[0]


def measured(
    runs: Sequence[RunDirectory], asked: Asked, log: Log, kept: Unfinished | None = None
) -> tuple[GradAngle, Mapping[Path, Revisit]]:
    """Measure the angles at every checkpoint that is recorded, or whose weights are kept.

    Args:
        runs: with or without arms; runs that differ only in the seed form one arm.
        asked: the options.
        log: receives progress lines.
        kept: results of the same command before it was killed.

    Returns:
        The angles, and the arms of the first run with usable weights, by folder.

    Raises:
        UserError: nothing is recorded and no weights are kept, a needed probe set is missing, a
            file cannot be read, or the runs are not of one model.
    """
    check_asked(asked)
    pair = Pair.of(asked.sets)
    asked = replace(asked, at=as_asked(asked.at))  # it is part of the files' names
    found = [(run, arm) for run in runs for arm in run.arms if arm.resolved_file.is_file()]
    check_tokenizers([arm for _, arm in found])
    replicates(runs, found)  # a seed given twice shows before anything is computed
    if asked.at:  # and so does a checkpoint that no run has
        known = [checkpoint for run in runs for checkpoint in known_checkpoints(run, asked)]
        _check_there(asked, known, [checkpoint.label for checkpoint in known])
    by_path: dict[Path, ArmMeasurements] = {}
    remarks: list[str] = []
    first: Mapping[Path, Revisit] = {}
    layout: Layout | None = None
    for run in runs:
        pasts = pasts_of(run, asked, remarks)
        first = pasts if run == runs[0] else first
        for _, arm in (pair for pair in found if pair[0] == run):
            one = arm_measurements(arm, pasts, asked, log, layout, kept)
            if one.sources:
                by_path[arm.path] = one
            layout = next((m.layout for m in one.measurements.values()), None) or layout
        for past in pasts.values():
            past.ready.loaded = None  # θ_0 is not kept beside the next run's
    if not by_path:
        raise UserError(_nothing(runs[0], asked))
    existing = [m.checkpoint for one in by_path.values() for m in one.measurements.values()]
    _check_there(asked, existing, [label for one in by_path.values() for label in one.sources])
    by_path = {path: one for path, one in by_path.items() if one.measurements}
    assert layout is not None  # a requested checkpoint exists
    there = [(run, arm) for run, arm in found if arm.path in by_path]
    arms = tuple(
        _stacked(label, [by_path[arm.path] for arm in members], layout)
        for label, members in replicates(runs, there)
    )
    missing = tuple(arm.name for run in runs for arm in run.arms if arm.path not in by_path)
    names = tuple(str(run.path) for run in runs)
    how = (asked.by, asked.metric)
    rule = Rule(asked.smallest, asked.planned)
    angles = GradAngle(names, *how, layout, arms, missing, tuple(remarks), asked.at, rule, pair)
    return angles, first


def _check_there(
    asked: Asked, checkpoints: Sequence[NamedCheckpoint], known: Sequence[str]
) -> None:
    """Reject a checkpoint that no arm has, and list the existing ones."""
    for item in asked.at:
        if not any(map(chosen([item]), checkpoints)):
            there = ", ".join(dict.fromkeys(known)) or "none"
            raise UserError(
                f"--at {item}: neither recorded nor are its weights kept; there are {there}"
            )


def _nothing(run: RunDirectory, asked: Asked) -> str:
    if asked.source == "record":
        return f"{run.path}: no snapshots; train with `record:` on"
    return f"{run.path}: no snapshots, and no stage that has ended; train with `record:` on"


def _stacked(label: str, members: Sequence[ArmMeasurements], layout: Layout) -> ArmAngles:
    """Stack the seeds of an arm, at the checkpoints and in the directions that all have."""
    first = next(iter(members[0].measurements.values()))
    for one in members:
        for measurement in one.measurements.values():
            if measurement.sets != first.sets:
                raise UserError(
                    f"{one.run.path}: its probe sets are not those of {members[0].run.path}"
                )
    labels = [
        name for name in members[0].measurements if all(name in one.measurements for one in members)
    ]
    if not labels:
        raise UserError(f"{members[-1].run.path}: no moment in common with {members[0].run.path}")
    grid = [[one.measurements[name] for name in labels] for one in members]
    names = {name for line in grid for one in line for name in one.directions}
    directions = tuple(
        sorted(
            names,
            key=lambda n: (
                n not in first.sets,
                first.sets.index(n) if n in first.sets else rank(n),
            ),
        )
    )
    return ArmAngles(
        arm=label,
        runs=tuple(str(one.run.path) for one in members),
        seeds=tuple(seed_of(one.run) for one in members),
        sets=first.sets,
        directions=directions,
        checkpoints=tuple(members[0].measurements[name].checkpoint for name in labels),
        sources=tuple(_source(members, name) for name in labels),
        inner=np.array([[_inner(one, directions) for one in line] for line in grid]),
        secants=_secants(grid, len(layout.parameters), len(first.sets)),
        probes=_probe_counts(members[0].run),
    )


def _source(members: Sequence[ArmMeasurements], label: str) -> str:
    found = {one.sources[label] for one in members}
    return found.pop() if len(found) == 1 else "record and weights"


def _inner(measurement: Measurement, directions: Sequence[str]) -> Floats:
    """Place a checkpoint's inner products in a wider table of directions."""
    wide = np.full((len(measurement.inner), len(directions), len(directions)), np.nan)
    at = [directions.index(name) for name in measurement.directions]
    wide[np.ix_(range(len(wide)), at, at)] = measurement.inner
    return wide


def _secants(grid: Sequence[Sequence[Measurement]], parameters: int, sets: int) -> Secants:
    shape = (len(grid), len(grid[0]), parameters, sets)
    here, start, turned = (np.full(shape, np.nan) for _ in range(3))
    found = Secants(here, start, turned, np.full(shape[:3], np.nan))
    for n, line in enumerate(grid):
        for m, measurement in enumerate(line):
            if measurement.secant is not None:
                found.here[n, m] = measurement.secant.here
                found.start[n, m] = measurement.secant.start
                found.turned[n, m] = measurement.secant.turned
                found.moved[n, m] = measurement.secant.moved
    return found


def _probe_counts(arm: RunDirectory) -> dict[str, tuple[int, int]]:
    if not arm.probes_file.exists():
        return {}
    probes = read_json(arm.probes_file)
    try:
        return {name: (int(probe["n"]), int(probe["of"])) for name, probe in probes.items()}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{arm.probes_file}: cannot be read ({error!r})") from None
