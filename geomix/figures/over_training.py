"""Figure: the angles of D_A's gradient along training, above the retention of D_A."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from geomix.figures.labels import (
    MARKS,
    NULLS,
    UPDATE,
    WHOLE,
    Row,
    angle,
    direction_symbol,
    mixed_in,
    of_seeds,
    parted,
    set_symbol,
    spread,
    stacked,
    unlike,
)
from geomix.figures.lines import marks_of, name_arms, write_blank
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

Measure = Literal["angle", "cosine"]

FOCUS = "D_A"
OTHERS = ("D_B", "D_M", "held-out", UPDATE)
"""Directions to draw in a table whose mixes have no names of their own."""

_ROW = 0.92
"""Height of a row of panels, in inches."""

_LEAST = {"angle": 20.0, "cosine": 0.3}
"""Least span of an axis, so that noise is not magnified."""


def draw(
    rows: Sequence[Row],
    retention: Sequence[Row],
    measure: Measure = "angle",
    *,
    log: bool = False,
    others: Sequence[str] | None = None,
    group: str = WHOLE,
    pair: tuple[str, str] = (FOCUS, OTHERS[0]),
) -> Figure:
    """Draw a column per stage: the angle of D_A with each other direction; last, its exact match.

    A later stage starts, at step 0, with the measurement at the end of the previous one. One line
    an arm, with a band where there are intervals; undetermined values are faint and open.

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric.
        retention: tidy: arm, stage, step, set, exact_match (%), half_width, n.
        measure: `angle` in degrees, or `cosine`.
        log: whether steps are drawn on a logarithmic scale (linear between 0 and 1).
        others: the directions to draw, among those in the table; None takes the second of the pair,
            all mixed-in sets, the held-out set if D_A is of the pair, and the update.
        group: of parameters.
        pair: the set in D_A's place, and the one that it is compared with.
    """
    focus, second = pair
    if others is None:
        null = NULLS[:1] if FOCUS in pair else ()
        known = (second, *mixed_in(rows), *null, UPDATE)
        others = [other for other in dict.fromkeys(known) if other != focus]
    pairs = {frozenset((focus, other)): other for other in others}
    rows = [
        row
        for row in rows
        if row["group"] == group and frozenset((row["first"], row["second"])) in pairs
    ]
    unlike(rows, "arm", "stage", "step", "first", "second")
    retention = [row for row in retention if row["set"] == focus]
    unlike(retention, "arm", "stage", "step")
    ends = [row for row in rows if "+" not in row["moment"] and row["step"]]
    rows, retention = begun(rows, ends), begun(retention, retention)
    arms = list(dict.fromkeys(row["arm"] for row in [*rows, *retention]))
    stages = sorted({row["stage"] for row in [*rows, *retention]})
    names = {row["stage"]: row.get("stage_name", "") for row in retention}
    found = {pairs[frozenset((row["first"], row["second"]))] for row in rows}
    shown = [other for other in others if other in found]
    columns: dict[str, list[Row]] = {other: [] for other in shown}
    for row in rows:
        columns[pairs[frozenset((row["first"], row["second"]))]].append(row)
    with style():
        width = WIDTH if len(stages) > 1 else COLUMN
        figure = new_figure(0.75 + _ROW * (len(shown) + 1), width)
        grid = figure.subplots(
            len(shown) + 1, len(stages), squeeze=False, sharex="col", sharey="row"
        )
        for line, other in zip(grid, shown, strict=False):
            draw_row(line, stages, arms, columns[other], _ENDS[measure])
            for axes, stage in zip(line, stages, strict=True):
                if not any(row["stage"] == stage for row in columns[other]):
                    write_blank(axes, "not recorded")
            _finish_angles(line, (focus, other), measure)
        draw_row(grid[-1], stages, arms, retention, percent)
        finish_percent(grid[-1][0], highest(retention, percent))
        grid[-1][0].set_ylabel(f"exact match\non {set_symbol(focus)} (%)")
        for axes, stage in zip(grid[0], stages, strict=True):
            axes.set_title(stage_title(stage, names.get(stage, "")))
        for line_of_stage, stage in zip(grid.T, stages, strict=True):
            steps = {row["step"] for row in [*rows, *retention] if row["stage"] == stage}
            finish_steps(line_of_stage[-1], sorted(steps), log=log)
        figure.align_ylabels(grid[:, 0])
        name_arms(figure, arms, marks_of(rows))
        settle(figure)
    return figure


def caption(rows: Sequence[Row], focus: str = FOCUS) -> str:
    """Describe the figure in sentences."""
    return (
        f"Angles or cosines of {focus}'s gradient with other directions along training, above the "
        f"exact match on {focus}. Columns are stages, each from where the one before ended; one "
        "line an arm, with a band where there are intervals. Two points alone are joined by dots. "
        f"{MARKS} {of_seeds(rows)}"
    )


def _of_cosine(row: Row) -> tuple[float, float, float]:
    """Return the value and both ends of its interval."""
    cosine, half = row["cosine"], spread(row)
    return cosine, float(np.maximum(cosine - half, -1)), float(np.minimum(cosine + half, 1))


def _of_angle(row: Row) -> tuple[float, float, float]:
    cosine, low, high = _of_cosine(row)
    return angle(cosine), angle(high), angle(low)


_ENDS: Mapping[Measure, Callable[[Row], tuple[float, float, float]]] = {
    "angle": _of_angle,
    "cosine": _of_cosine,
}


def _finish_angles(line: Sequence[Axes], pair: tuple[str, str], measure: Measure) -> None:
    one, two = map(direction_symbol, pair)
    corner = line[0]
    for axes in line:
        axes.axhline(90 if measure == "angle" else 0, color="0.6", lw=0.6, zorder=0)
    low, high = corner.get_ylim()
    short = max(0.0, _LEAST[measure] - (high - low)) / 2
    corner.set_ylim(low - short, high + short)
    if measure == "angle":
        corner.set_ylabel(_named(f"∠({one}, {two})", pair))
        corner.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 5, 10]))
        corner.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}°"))
    else:
        corner.set_ylabel(_named(f"cos({one}, {two})", pair))
        corner.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        corner.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))


def _named(label: str, pair: tuple[str, str]) -> str:
    """Return a row's label, in several lines if a mix's own name makes it too long for one."""
    return stacked(label) if any(parted(name)[1] for name in pair) else label
