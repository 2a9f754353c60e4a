"""Retention of sets along training, averaged over seeds; `geomix figure retention`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomix.analysis.replicates import replicates, suffix_of
from geomix.config.names import role_of
from geomix.figures import retention as figure
from geomix.figures.stage_panels import begun
from geomix.figures.style import save_figure
from geomix.measures.intervals import over_seeds
from geomix.measures.scores import ALWAYS
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.reading import expect

Rows = list[dict[str, Any]]


def retention_rows(
    arms: Iterable[tuple[str, Sequence[RunDirectory]]],
    sets: Sequence[str] = ("D_A",),
    score: str = "exact_match",
) -> Rows:
    """Return each set's score at every arm and step that all the arm's runs have measured.

    Args:
        arms: label and runs, one a seed; their `metrics.jsonl` are read.
        sets: names.
        score: the name of one, in its own unit.

    Returns:
        Tidy rows, with step 0 of a later stage copied from the previous stage's end: arm, stage
        (index), stage_name, step, set, examples (number scored; with several seeds the smallest),
        the score (mean over seeds), half_width (Student's 95 %, nan with one seed), n (seeds).
    """
    rows: Rows = []
    for label, runs in arms:
        names = stage_names(runs[0])
        for name in sets:
            found = [_measured(run, name, score) for run in runs]
            shared = [key for key in found[0] if all(key in one for one in found)]
            mine: Rows = []
            for stage, step in sorted(shared):
                values = np.array([one[stage, step][0] for one in found])
                mean, half = over_seeds(values)
                at = {"arm": label, "stage": stage, "stage_name": names.get(stage, "")}
                examples = min(one[stage, step][1] for one in found)
                at |= {"step": step, "set": name, "examples": examples}
                mine.append({**at, score: mean, "half_width": half, "n": len(found)})
            started = begun(mine, mine)
            rows += sorted(started, key=lambda row: (row["stage"], row["step"]))
    return rows


def stage_names(run: RunDirectory) -> dict[int, str]:
    """Return the names of a run's stages by their indices, from the stages' folders."""
    folders = [path.name for path in run.path.glob("stages/*-*")]
    split = [name.split("-", 1) for name in folders]
    return {int(number): name for number, name in split if number.isdigit()}


def trained_sets(run: RunDirectory) -> list[str]:
    """Return the sets that an arm's evaluations measured, in their order."""
    lines = run.metrics() if run.metrics_file.is_file() else []
    return list(dict.fromkeys(str(x["set"]) for x in lines if x.get("event") == "evaluation"))


def retention_figure(
    runs: Sequence[RunDirectory],
    sets: Sequence[str] = (),
    score: str = "exact_match",
    *,
    log: bool = False,
) -> list[Path]:
    """Draw a score of sets along training, an arm a line, and save the figure and its table.

    Args:
        runs: with or without arms; those that differ only in their seeds give one line with
            Student's 95 % interval. Results of several runs are saved in the first one's folder.
        sets: names; none means all that a stage trains on (D_A, D_B, …).
        score: as in `retention_rows`.
        log: whether steps are drawn on a logarithmic scale.

    Returns:
        The PDF, the PNG, the CSV and the caption.

    Raises:
        UserError: no evaluation has one of the sets, or the score.
    """
    arms = replicates(runs, [(run, arm) for run in runs for arm in run.arms])
    known = dict.fromkeys(name for _, found in arms for run in found for name in trained_sets(run))
    for name in sets:
        if name not in known:
            there = ", ".join(known) or "none yet"
            raise UserError(f"{runs[0].path}: no evaluation of {name}; there are: {there}")
    shown = list(sets) or [name for name in known if role_of(name) == "own"]
    rows = retention_rows(arms, shown, score)
    if not rows:
        raise UserError(
            f"{runs[0].path}: no evaluation has {score} of {', '.join(shown) or 'a set'}"
        )
    kind = ("" if score == "exact_match" else f"_{score}") + ("_log" if log else "")
    name = f"retention{kind}" + suffix_of([str(run.path) for run in runs])
    drawn = figure.draw(rows, score, log=log)
    with runs[0].saving():
        return save_figure(drawn, rows, runs[0].figure_folder, name, figure.caption(rows))


def _measured(run: RunDirectory, name: str, score: str) -> dict[tuple[int, int], tuple[float, int]]:
    """Return (stage, step) → the score and its number of examples."""
    if not run.metrics_file.is_file():
        return {}
    found = {}
    for line in run.metrics():
        if line.get("event") == "evaluation" and line.get("set") == name:
            if line.get(score) is None and score not in ALWAYS:
                continue
            numbers: list[Any] = [line.get(key) for key in ("stage", "step", score, "n")]
            expect(run.metrics_file, f"stage, step, n and {score}, numbers", _are_numbers(numbers))
            found[numbers[0], numbers[1]] = float(numbers[2]), int(numbers[3])
    return found


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
