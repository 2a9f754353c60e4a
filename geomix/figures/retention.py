"""Figure: retention of each set along training, for the arms of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from geomix.figures.labels import Row, half_width, of_seeds, set_symbol, unlike
from geomix.figures.lines import name_arms
from geomix.figures.stage_panels import (
    begun,
    draw_row,
    finish_percent,
    finish_steps,
    highest,
    percent,
    stage_title,
)
from geomix.figures.style import COLUMN, WIDTH, new_figure, settle, style
from geomix.measures.scores import score_named

_NAME = 16
"""Most characters of a set's name, which is vertical beside its row."""

_ROW = 1.05
"""Height of a set's row, in inches."""


def draw(rows: Sequence[Row], score: str = "exact_match", *, log: bool = False) -> Figure:
    """Draw a column per stage and a row per set; one line an arm, with a band for intervals.

    A later stage starts, at step 0, with the measurement at the end of the previous one, whether or
    not the rows contain it.

    A line joins evaluations of the same examples; those of another number of examples, such as the
    whole set at a stage's boundary beside a sample after each epoch, are rings. Two evaluations
    with none between them, as of a set that a stage does not measure, are only joined by dots. The
    axes of all sets end at 100, or closer to the data if that stays below 50.

    Args:
        rows: tidy: arm, stage, stage_name, step, set, examples, the score's column, half_width;
            the CSV has the same.
        score: the name of one.
        log: whether steps are drawn on a logarithmic scale (linear between 0 and 1).
    """
    known = score_named(score)
    unlike(rows, "arm", "set", "stage", "step")
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    stages = {row["stage"]: row["stage_name"] for row in rows}
    order = sorted(stages)
    rows = begun(rows, rows)
    most = highest(rows, lambda row: _ends(row, score))
    with style():
        width = WIDTH if len(stages) > 1 else COLUMN
        figure = new_figure(0.75 + _ROW * len(sets), width)
        grid = figure.subplots(
            len(sets),
            len(stages),
            squeeze=False,
            sharex="col",
            sharey="row",
        )
        for line, name in zip(grid, sets, strict=True):
            mine = [row for row in rows if row["set"] == name]
            draw_row(line, order, arms, mine, lambda row: _ends(row, score))
            if known.unit == "percent":
                finish_percent(line[0], most)
            line[0].set_ylabel(f"{set_symbol(name, _NAME)}\n{known.axis}")
        for axes, stage in zip(grid[0], order, strict=True):
            axes.set_title(stage_title(stage, stages[stage]))
        for column, stage in zip(grid.T, order, strict=True):
            steps = {row["step"] for row in rows if row["stage"] == stage}
            finish_steps(column[-1], sorted(steps), log=log)
        figure.align_ylabels(grid[:, 0])
        name_arms(figure, arms)
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    return (
        "How well each set (rows) is known along the stages of training (columns), each from where "
        "the one before ended; one line an arm, with a band where there are intervals. Rings are "
        "evaluations of another number of examples than most; two evaluations with none between "
        f"them are joined by dots. {of_seeds(rows)}"
    )


def _ends(row: Row, score: str) -> tuple[float, float, float]:
    if score_named(score).unit == "percent":
        return percent(row, score)
    return row[score], row[score] - half_width(row), row[score] + half_width(row)
