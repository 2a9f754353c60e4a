"""`geomix analyze grad-angle`: angles between the sets' gradients, by depth and over training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from geomix.analyze.angle_notes import notes
from geomix.analyze.angle_table import render
from geomix.analyze.angles import GradAngle, measure, save
from geomix.analyze.groups import By
from geomix.analyze.moments import figure_moments
from geomix.plots.figure import save_figure
from geomix.plots.grad_angle import draw
from geomix.run import Run


def grad_angle(run: Run, by: By = "layer") -> tuple[GradAngle, list[Path]]:
    """Measure, save the arrays, the table and the figure, and say which files these are.

    Args:
        run: a run, with or without arms.
        by: what a row of the table stands for.

    Raises:
        UserError: the run holds no snapshots that can be compared.
    """
    result = measure(run, by)
    rows = [asdict(row) for row in result.rows()]
    files = save(result, notes(result), run.analysis_folder)
    figure = draw(rows, figure_moments([arm.moments for arm in result.arms]))
    return result, files + save_figure(figure, rows, run.figure_folder, result.stem)


def command(run: Run, by: By, as_json: bool) -> None:
    """The command's body: compute, save, print the tables, or the whole result as JSON."""
    result, files = grad_angle(run, by)
    if as_json:
        print(json.dumps(result.to_json(notes(result)), allow_nan=False))
        return
    console = Console(highlight=False)
    console.print(render(result))
    console.print()
    for file in files:
        console.print(str(file), soft_wrap=True)
