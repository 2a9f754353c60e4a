"""Files of `geomix analyze grad-angle`: arrays, tables, report and figures."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from geomix.analysis.answer import WIDTH
from geomix.analysis.base import Log
from geomix.analysis.checkpoints import figure_checkpoints
from geomix.analysis.directions import HELD_OUT, UPDATE
from geomix.analysis.findings import Drawn
from geomix.analysis.grad_angle.examples import Tables, without_pairs
from geomix.analysis.grad_angle.examples import render as render_examples
from geomix.analysis.grad_angle.files import save
from geomix.analysis.grad_angle.notes import notes
from geomix.analysis.grad_angle.pair import Pair
from geomix.analysis.grad_angle.result import GradAngle
from geomix.analysis.grad_angle.tables import render
from geomix.analysis.retention import retention_rows
from geomix.figures import cosine_by_depth as by_depth
from geomix.figures import cosine_row as angle_row
from geomix.figures import layer_module, pairwise, plane
from geomix.figures import over_training as along
from geomix.figures.labels import mixed_in
from geomix.figures.style import save_figure
from geomix.runs.directory import RunDirectory
from geomix.util.console import Console
from geomix.util.files import written_file
from geomix.util.progress import during

_PAIR = ("set", "example", "prompt", "target")
_COLUMNS = [
    *("arm", "seed", "moment", "group", "rank", "inner_product", "cosine", "share_of_sets"),
    *(f"{which}_{what}" for which in ("first", "second") for what in _PAIR),
]
"""Columns of the list of conflicts, even if it is empty."""


@during(lambda *_: "drawing the figures")
def save_all(
    run: RunDirectory, result: GradAngle, examples: dict[str, Tables], log: Log
) -> list[Path]:
    """Save everything in a run's folders; return the files."""
    folder, drawn = run.analysis_folder, run.figure_folder
    with run.saving(log):
        files = save(result, notes(result), folder, without_pairs(examples))
        files.append(_printed(folder / f"{result.stem}.txt", report(result, examples)))
        if examples:
            files.append(_conflicts(folder / f"{result.stem}_conflicts.csv", examples))
        for ending, figure, rows, caption in figures(result, examples):
            files += save_figure(figure, rows, drawn, result.stem + ending, caption)
        for file in _all_files(run, result.stem):
            if file not in files:  # of an earlier call with more output
                file.unlink(missing_ok=True)
    return files


def _all_files(run: RunDirectory, stem: str) -> list[Path]:
    """Return the full names of files that only some calls write; others are the user's."""
    endings = ["_along", "_row", "_pairs", *(f"_pairs_{arm.name}" for arm in run.arms)]
    names = [
        f"{stem}{ending}.{form}" for ending in endings for form in ("pdf", "png", "csv", "txt")
    ]
    conflicts = run.analysis_folder / f"{stem}_conflicts.csv"
    return [conflicts, *(run.figure_folder / name for name in names)]


def figures(result: GradAngle, examples: dict[str, Tables]) -> Iterator[Drawn]:
    """Draw every figure of the angles and of the single examples."""
    yield from _figures(result)
    yield from _example_figures(examples, result.pair)


def _figures(result: GradAngle) -> Iterator[Drawn]:
    """Draw the table of angles."""
    rows = [_flat(asdict(row)) for row in result.rows()]
    checkpoints = figure_checkpoints([arm.checkpoints for arm in result.arms])
    pair = result.pair
    drawn = by_depth.draw(rows, checkpoints, pair.first)
    yield Drawn("", drawn, rows, by_depth.caption(rows, pair.first))
    early = _early(result, checkpoints)
    few = list(dict.fromkeys((*early, checkpoints[-1])))
    there = [row for row in rows if row["moment"] in few]
    both = [row for row in there if {row["first"], row["second"]} == {*pair.names}]
    null = [] if pair.null is None else [{pair.first, HELD_OUT}]
    both += [row for row in there if {row["first"], row["second"]} in null]
    if result.by == "layer" and both:
        row = angle_row.draw(both, few, pair.names)
        yield Drawn("_row", row, both, angle_row.caption(both, pair.names))
    whole = [row for row in rows if row["group"] == "all" and row["moment"] in early]
    shown = (*pair.names, *mixed_in(whole), UPDATE)
    yield Drawn("_plane", plane.draw(whole, early, shown), whole, plane.caption(whole, pair.names))
    cells = [_flat(asdict(row)) for row in result.rows("layer-module")]
    cells = [row for row in cells if row["moment"] == early[-1]]
    names = list(dict.fromkeys(row["arm"] for row in cells))
    difference = (names[0], names[1]) if len(names) > 1 else None
    drawn = layer_module.draw(cells, early[-1], pair.names, difference)
    yield Drawn("_layer_module", drawn, cells, layer_module.caption(cells, pair.names))
    runs = [(arm.arm, [RunDirectory(Path(run)) for run in arm.runs]) for arm in result.arms]
    retention = retention_rows(runs, (pair.first,))
    if retention:
        every = [row for row in rows if row["group"] == "all"]
        drawn = along.draw(every, retention, "cosine", log=True, pair=pair.names)
        caption = along.caption(every, pair.first)
        yield Drawn("_along", drawn, [*_wide(every, retention)], caption)


def _early(result: GradAngle, checkpoints: Sequence[str]) -> list[str]:
    """Return θ_A and the first step after it that all have, if any; else the last checkpoint.

    If the sets meet in a later stage, θ_A is the checkpoint that this stage starts from.
    """
    start = result.pair.start
    shared = [label for label in checkpoints if all(label in arm.labels for arm in result.arms)]
    found = [label for label in shared if label == start]
    found += [label for label in shared if label.startswith(f"{start}+")][:1]
    return found or [shared[-1] if shared else checkpoints[-1]]


def _wide(
    rows: Sequence[dict[str, Any]], retention: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield both tables behind the figure in one: each row leaves the other's columns empty."""
    columns = dict.fromkeys([*rows[0], *retention[0]], "")
    for row in (*rows, *retention):
        yield {**columns, **row}


def _example_figures(examples: dict[str, Tables], pair: Pair) -> Iterator[Drawn]:
    for arm, tables in examples.items():
        ending = f"_pairs_{arm}" if len(examples) > 1 else "_pairs"
        pairs = tables["pairs"]
        yield Drawn(ending, pairwise.draw(pairs), pairs, pairwise.caption(pairs, pair.names))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "values": " ".join(map(repr, row["values"]))}


def _conflicts(path: Path, examples: dict[str, Tables]) -> Path:
    """Write the ranked list of conflicts, with the texts."""
    rows = [row for tables in examples.values() for row in tables["conflicts"]]
    with written_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def report(result: GradAngle, examples: dict[str, Tables]) -> RenderableType:
    """Return all tables and notes."""
    whole = {Path(arm.runs[0]).name: arm.whole_sets for arm in result.arms}
    return Group(render(result), render_examples(examples, whole, result.pair))


def _printed(path: Path, printed: RenderableType) -> Path:
    """Write the output of `--full` as a text file of 80 columns."""
    with written_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDTH).print(printed)
    return path
