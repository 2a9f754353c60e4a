"""Figure: the angles of D_A's gradient along training, above how much of D_A is still known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from geomix.geometry.cosine import Floats
from geomix.plots.figure import COLUMN, WIDTH, new_figure, settle, style
from geomix.plots.lines import draw_band, draw_line, name_arms
from geomix.plots.names import (
    UPDATE,
    WHOLE,
    Row,
    angle,
    direction_symbol,
    half_width,
    is_undetermined,
    unlike,
)

Measure = Literal["angle", "cosine"]

FOCUS = "D_A"
OTHERS = ("D_B", "D_M", "held-out", UPDATE)

_ROW = 0.92
"""Inches for a row of panels."""

_LEAST = {"angle": 20.0, "cosine": 0.3}
"""What an axis spans at least, so that noise is not blown up."""

_BELOW = 0.4
"""Length of an axis from 0 to 1, in decades, where it is logarithmic from there on."""

_SLACK = 0.06
"""Room at the ends of an axis, as a share of it."""


def draw(
    rows: Sequence[Row],
    retention: Sequence[Row],
    measure: Measure = "angle",
    *,
    log: bool = False,
    others: Sequence[str] = OTHERS,
    group: str = WHOLE,
) -> Figure:
    """Columns: stages. Rows: the angle of D_A with each other direction; last, its exact match.

    A later stage begins, at step 0, with what was measured where the one before ended.
    One line an arm, with a band where there are intervals; what is undetermined is faint and open.

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric.
        retention: tidy: arm, stage, step, set, exact_match (%), half_width, n.
        measure: `angle` in degrees, or `cosine`.
        log: whether steps are drawn on a logarithmic scale (linear between 0 and 1).
        others: the directions to draw, of what the table has.
        group: of parameters.
    """
    pairs = {frozenset((FOCUS, other)): other for other in others}
    rows = [
        row
        for row in rows
        if row["group"] == group and frozenset((row["first"], row["second"])) in pairs
    ]
    unlike(rows, "arm", "stage", "step", "first", "second")
    retention = [row for row in retention if row["set"] == FOCUS]
    unlike(retention, "arm", "stage", "step")
    ends = [row for row in rows if "+" not in row["moment"] and row["step"]]
    rows, retention = _begun(rows, ends), _begun(retention, retention)
    arms = list(dict.fromkeys(row["arm"] for row in [*rows, *retention]))
    stages = sorted({row["stage"] for row in [*rows, *retention]})
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
            _draw_row(line, stages, arms, columns[other], _ENDS[measure])
            _finish_angles(line, other, measure)
        _draw_row(grid[-1], stages, arms, retention, _of_retention)
        grid[-1][0].set(ylim=(-100 * _SLACK, 100 * (1 + _SLACK)), yticks=[0, 50, 100])
        grid[-1][0].set_ylabel(f"exact match\non {FOCUS} (%)")
        for axes, stage in zip(grid[0], stages, strict=True):
            axes.set_title(f"stage {stage + 1}")
        for line_of_stage, stage in zip(grid.T, stages, strict=True):
            steps = {row["step"] for row in [*rows, *retention] if row["stage"] == stage}
            _finish_steps(line_of_stage[-1], sorted(steps), log=log)
        figure.align_ylabels(grid[:, 0])
        name_arms(figure, arms)
        settle(figure)
    return figure


def _begun(rows: Sequence[Row], ends: Sequence[Row]) -> list[Row]:
    """The rows, and at step 0 of each later stage what was measured where the one before ended.

    The update is there that of the stage which begins, so that it moves.

    Args:
        rows: of one table.
        ends: those of them that may be the last of their stage.
    """

    def place(row: Row, stage: int) -> tuple[Any, ...]:
        return row["arm"], stage, frozenset((row.get("first"), row.get("second")))

    begun = {(row["arm"], row["stage"]) for row in rows}
    last = {
        place(row, row["stage"] + 1): row
        for row in sorted(ends, key=lambda row: int(row["step"]))
        if (row["arm"], row["stage"] + 1) in begun
    }
    known = {place(row, row["stage"]) for row in rows if row["step"] == 0}
    starts = [
        {**row, "stage": row["stage"] + 1, "step": 0} for at, row in last.items() if at not in known
    ]
    moved = {id(row) for (_, _, pair), row in last.items() if UPDATE in pair}
    return [*(row for row in rows if id(row) not in moved), *starts]


def _of_cosine(row: Row) -> tuple[float, float, float]:
    """Value and both ends of its interval."""
    cosine, half = row["cosine"], half_width(row)
    return cosine, float(np.maximum(cosine - half, -1)), float(np.minimum(cosine + half, 1))


def _of_angle(row: Row) -> tuple[float, float, float]:
    cosine, low, high = _of_cosine(row)
    return angle(cosine), angle(high), angle(low)


def _of_retention(row: Row) -> tuple[float, float, float]:
    value, half = row["exact_match"], half_width(row)
    return value, float(np.maximum(value - half, 0)), float(np.minimum(value + half, 100))


_ENDS: Mapping[Measure, Callable[[Row], tuple[float, float, float]]] = {
    "angle": _of_angle,
    "cosine": _of_cosine,
}


def _draw_row(
    line: Sequence[Axes],
    stages: Sequence[int],
    arms: Sequence[str],
    rows: Sequence[Row],
    ends: Callable[[Row], tuple[float, float, float]],
) -> None:
    for axes, stage in zip(line, stages, strict=True):
        for index, arm in enumerate(arms):
            mine = [row for row in rows if (row["arm"], row["stage"]) == (arm, stage)]
            mine.sort(key=lambda row: row["step"])
            if mine:
                x: Floats = np.array([row["step"] for row in mine], dtype=np.float64)
                y, low, high = (np.array(part) for part in zip(*map(ends, mine), strict=True))
                clear = np.array([not is_undetermined(row) for row in mine])
                draw_line(axes, index, x, y, clear, 2.4)
                draw_band(axes, index, x, low, high)


def _finish_angles(line: Sequence[Axes], other: str, measure: Measure) -> None:
    one, two = direction_symbol(FOCUS), direction_symbol(other)
    corner = line[0]
    for axes in line:
        axes.axhline(90 if measure == "angle" else 0, color="0.6", lw=0.6, zorder=0)
    low, high = corner.get_ylim()
    short = max(0.0, _LEAST[measure] - (high - low)) / 2
    corner.set_ylim(low - short, high + short)
    if measure == "angle":
        corner.set_ylabel(f"∠({one}, {two})")
        corner.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 5, 10]))
        corner.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}°"))
    else:
        corner.set_ylabel(f"cos({one}, {two})")
        corner.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        corner.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))


def _finish_steps(axes: Axes, steps: Sequence[int], *, log: bool) -> None:
    last = max(steps)
    axes.set_xlabel("optimiser steps of the stage")
    if not log:
        axes.set_xlim(-_SLACK * last, (1 + _SLACK) * last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return
    length = np.log10(max(last, 1))  # decades
    ticks = [10**k for k in range(len(str(last)))]
    if min(steps) >= 1:
        axes.set_xscale("log")
        axes.set_xlim(min(steps) * 10 ** (-_SLACK * length), last * 10 ** (_SLACK * length))
    else:
        axes.set_xscale("symlog", linthresh=1, linscale=_BELOW)
        axes.set_xlim(-_SLACK * (length + _BELOW) / _BELOW, last * 10 ** (_SLACK * length))
        ticks = [0, *ticks]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
