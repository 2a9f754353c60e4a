"""`geomix analyze grad-angle`: angles between gradients, by depth and over training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from geomix.analyze.angle_files import save, to_json
from geomix.analyze.angle_measure import measure
from geomix.analyze.angle_notes import notes
from geomix.analyze.angle_sources import Asked, Say
from geomix.analyze.angle_table import render
from geomix.analyze.angles import GradAngle
from geomix.analyze.moments import figure_moments
from geomix.plots.figure import save_figure
from geomix.plots.grad_angle import draw
from geomix.run import Run


def grad_angle(
    runs: Sequence[Run], asked: Asked | None = None, say: Say = lambda _: None
) -> tuple[GradAngle, list[Path]]:
    """Measure, save the arrays, the table and the figure, and say which files these are.

    Args:
        runs: with or without arms; those that differ in nothing but their seeds are put together,
            and what comes of several is saved in the first one's folders.
        asked: how to group, which moments, in which metric; None for the defaults.
        say: is told of what takes a while.

    Raises:
        UserError: there is nothing that can be compared.
    """
    result = measure(runs, asked or Asked(), say)
    rows = [asdict(row) for row in result.rows()]
    files = save(result, notes(result), runs[0].analysis_folder)
    figure = draw(rows, figure_moments([arm.moments for arm in result.arms]))
    for row in rows:
        row["values"] = " ".join(map(repr, row["values"]))
    return result, files + save_figure(figure, rows, runs[0].figure_folder, result.stem)


def command(runs: Sequence[Run], asked: Asked, as_json: bool) -> None:
    """The command's body: compute, save, print the tables, or the whole result as JSON."""
    hint = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        hint.print(line, soft_wrap=True, markup=False)

    result, files = grad_angle(runs, asked, say)
    if as_json:
        print(json.dumps(to_json(result, notes(result)), allow_nan=False))
        return
    console = Console(highlight=False)
    console.print(render(result))
    console.print()
    for file in files:
        console.print(str(file), soft_wrap=True)
