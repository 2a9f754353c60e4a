"""Contribution of each part of the model, and of its updates, to every probe set's loss change.

Shapes: n runs of an arm that differ in their seeds, g groups of parameters, S sets, J parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomix.analysis.forgetting_path.record import Floats, RecordedPath, last_stage, read_path
from geomix.analysis.parameter_groups import By, grouped, same_parameters
from geomix.analysis.replicates import check_tokenizers, replicates, seed_of
from geomix.config.stage_names import stage_title
from geomix.measures.intervals import t_interval
from geomix.measures.line_integral import moved
from geomix.runs.directory import RunDirectory
from geomix.snapshots.schema import Snapshot
from geomix.util.errors import UserError

WHOLE = "all"
"""Group of all parameters: the whole model."""


@dataclass(frozen=True, slots=True)
class ArmSplit:
    """One arm's split, with the whole model as its first group.

    Attributes:
        arm: its name.
        runs: names of the n runs.
        seeds: theirs.
        sets: probe sets.
        parts: of the update, `total` first.
        simpson: `(n, g, S, J)` nats.
        trapezoid: the same by that rule.
        coarser: the same with half as many snapshots; nan if a run has no pairs.
        measured: `(n, S)` nats, the change of the recorded mean loss.
        segments: number of segments of each run's path.
        steps: last recorded step of each run's stage, and most steps of the stage.
        cells: `(n, c, S, J)` nats by Simpson's rule, of the c cells of layer and block.
    """

    arm: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    parts: tuple[str, ...]
    simpson: Floats
    trapezoid: Floats
    coarser: Floats
    measured: Floats
    segments: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    cells: Floats

    def error(self, name: str) -> Floats:
        """Return `(n,)` |Simpson's total − the measured change| over the measured change."""
        s = self.sets.index(name)
        total, measured = self.simpson[:, 0, s, 0], self.measured[:, s]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.abs(total - measured) / np.abs(measured))

    def moved(self, name: str) -> Floats:
        """Return the shares `(n, 2)` moved with half the snapshots: among groups, among parts."""
        s = self.sets.index(name)
        pairs = zip(self.trapezoid[:, :, s], self.coarser[:, :, s], strict=True)
        return np.array([[moved(a[1:, 0], b[1:, 0]), moved(a[0, 1:], b[0, 1:])] for a, b in pairs])


@dataclass(frozen=True, slots=True)
class ForgettingPath:
    """Split of a stage's changes.

    Attributes:
        stage: its index, from 0.
        stage_name: its name; if arms name it differently, all names.
        by: the grouping of the parameters.
        groups: g names: the whole model, then from the embedding to the head.
        cells: layer and block of each cell of the figure.
        arms: those that have a path.
        missing: names of the arms that have no snapshots.
    """

    stage: int
    stage_name: str
    by: By
    groups: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]
    arms: tuple[ArmSplit, ...]
    missing: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title such as `stage 2 (triples)`."""
        return stage_title(self.stage, self.stage_name)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the tidy table: every arm, set, group and part."""
        for arm in self.arms:
            for s, name in enumerate(arm.sets):
                for g, group in enumerate(self.groups):
                    for j, part in enumerate(arm.parts):
                        where = {"arm": arm.arm, "set": name, "group": group, "part": part}
                        yield where | interval(arm.simpson[:, g, s, j])

    def cell_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the figure's table: one set, every layer, block (`all` is their sum) and part."""
        for arm in self.arms:
            s = arm.sets.index(name)
            for c, (layer, block) in enumerate(self.cells):
                for j, part in enumerate(arm.parts):
                    where = {"arm": arm.arm, "set": name, "layer": layer, "block": block}
                    yield where | {"part": part} | interval(arm.cells[:, c, s, j])
            for layer in dict.fromkeys(layer for layer, _ in self.cells):
                mine = [c for c, (group, _) in enumerate(self.cells) if group == layer]
                where = {"arm": arm.arm, "set": name, "layer": layer, "block": WHOLE}
                whole = arm.cells[:, mine, s, 0].sum(axis=1)
                yield where | {"part": arm.parts[0]} | interval(whole)


def interval(values: Floats) -> dict[str, Any]:
    """Return mean over n seeds, nats, and half of Student's 95 % interval; nan for a single one."""
    n = len(values)
    mean, half = t_interval(list(values)) if n > 1 else (float(values[0]), float("nan"))
    return {"change": mean, "half_width": half, "seeds": n}


def measure(
    runs: Sequence[RunDirectory], stage: int | None = None, by: By = "layer"
) -> ForgettingPath:
    """Split the changes of the probe sets' losses over a stage.

    Args:
        runs: with or without arms; runs that differ only in the seed form one arm.
        stage: index from 0; None is the last recorded one.
        by: the grouping of the parameters.

    Raises:
        UserError: there is no path to sum, or the runs cannot be combined.
    """
    found = [(run, arm) for run in runs for arm in run.arms]
    recorded = [(run, arm) for run, arm in found if arm.snapshots()]
    if not recorded:
        last_stage(found[0][1])  # reports what is missing
    stage = last_stage(recorded[0][1]) if stage is None else stage
    check_tokenizers([arm for _, arm in recorded])
    arms = [
        (label, [(arm, read_path(arm, stage)) for arm in members])
        for label, members in replicates(runs, recorded)
    ]
    model = arms[0][1][0][1].model
    split = [_arm(label, members, model, by) for label, members in arms]
    missing = tuple(arm.name for run, arm in found if (run, arm) not in recorded)
    groups, cells = grouped(model, by)[0], _cells(model)[0]
    names = {path.model.stage_name: None for _, members in arms for _, path in members}
    where = (stage, " or ".join(filter(None, names)), by)
    return ForgettingPath(*where, (WHOLE, *groups), tuple(cells), tuple(split), missing)


def _arm(
    label: str, members: Sequence[tuple[RunDirectory, RecordedPath]], model: Snapshot, by: By
) -> ArmSplit:
    runs = [run for run, _ in members]
    paths = [path for _, path in members]
    seeds = [seed_of(run) for run in runs]
    for run, path in members:
        if not same_parameters(path.model, model):
            raise UserError(f"{run.path}: it trains other parameters than the first run or arm")
        if (path.model.sets, path.parts) != (paths[0].model.sets, paths[0].parts):
            raise UserError(
                f"{run.path}: its probe sets or sources are not those of {runs[0].path}"
            )
    _, index = grouped(model, by)
    _, cell = _cells(model)
    none = np.full_like(paths[0].change.simpson, np.nan)
    return ArmSplit(
        arm=label,
        runs=tuple(str(run.path) for run in runs),
        seeds=tuple(seeds),
        sets=paths[0].model.sets,
        parts=paths[0].parts,
        simpson=np.stack([_grouped(path.change.simpson, index) for path in paths]),
        trapezoid=np.stack([_grouped(path.change.trapezoid, index) for path in paths]),
        coarser=np.stack(
            [_grouped(none if path.coarser is None else path.coarser, index) for path in paths]
        ),
        measured=np.stack([path.measured for path in paths]),
        segments=tuple(path.segments for path in paths),
        steps=tuple((path.model.step, path.model.steps) for path in paths),
        cells=np.stack([_grouped(path.change.simpson, cell)[1:] for path in paths]),
    )


def _grouped(values: Floats, index: Any) -> Floats:
    """Return `(1 + g, S, J)` sums over all M parameters and over those of each group."""
    groups = np.zeros((int(index.max()) + 1, *values.shape[1:]))
    np.add.at(groups, index, values)
    return np.concatenate([values.sum(axis=0, keepdims=True), groups])


def _cells(model: Snapshot) -> tuple[list[tuple[str, str]], Any]:
    """Return layer and block of every cell, by depth, and each parameter's cell."""
    groups, at = grouped(model, "layer")
    blocks = [_block(module) for module in model.parameter_modules]
    names = [(groups[group], block) for group, block in zip(at, blocks, strict=True)]
    cells = sorted(dict.fromkeys(names), key=lambda cell: groups.index(cell[0]))
    return cells, np.array([cells.index(name) for name in names])


def _block(module: str) -> str:
    if "norm" in module or module.startswith("ln"):
        return "norms"
    if "attn" in module or "attention" in module:
        return "attention"
    return (
        "MLP" if any(word in module for word in ("mlp", "fc", "dense", "expert")) else "emb./head"
    )


def to_json(result: ForgettingPath, notes: Sequence[str]) -> dict[str, Any]:
    """Return the whole result and its notes as JSON values; nan becomes null."""
    return {
        "analysis": "forgetting_path",
        "schema_version": 1,
        "stage": result.stage,
        "by": result.by,
        "arms_without_snapshots": list(result.missing),
        "checks": [_plain(check) for check in checks(result)],
        "notes": list(notes),
        "rows": [_plain(row) for row in result.rows()],
    }


def checks(result: ForgettingPath) -> Iterator[dict[str, Any]]:
    """Yield both checks of every arm, run and set; changes in nats, the rest in shares of 1."""
    for arm in result.arms:
        for s, name in enumerate(arm.sets):
            rows = zip(arm.runs, arm.seeds, arm.error(name), arm.moved(name), strict=True)
            for n, (run, seed, error, (groups, parts)) in enumerate(rows):
                yield {
                    "arm": arm.arm,
                    "run": run,
                    "seed": seed,
                    "set": name,
                    "pieces": arm.segments[n],
                    "measured": float(arm.measured[n, s]),
                    "simpson": float(arm.simpson[n, 0, s, 0]),
                    "trapezoid": float(arm.trapezoid[n, 0, s, 0]),
                    "coarser": float(arm.coarser[n, 0, s, 0]),
                    "error": float(error),
                    "moved_groups": float(groups),
                    "moved_parts": float(parts),
                }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    bad = {key for key, v in row.items() if isinstance(v, float) and not np.isfinite(v)}
    return {key: None if key in bad else value for key, value in row.items()}
