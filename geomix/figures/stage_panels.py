"""Panels of a training: stages across, quantities down, one line an arm along the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from geomix.figures.labels import UPDATE, Row, half_width, is_undetermined, plain
from geomix.figures.lines import draw_band, draw_line
from geomix.figures.style import arm_look
from geomix.measures.cosine import Floats

_BELOW = 0.4
"""Length of the linear part from 0 to 1 of a logarithmic axis, in decades."""

_SLACK = 0.06
"""Margin at the ends of an axis, as a share of it."""

Ends = Callable[[Row], tuple[float, float, float]]
"""Function from a row to its value and both ends of its interval."""


def begun(rows: Sequence[Row], ends: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows, with each later stage's step 0 copied from the previous stage's end.

    The update there is that of the stage which starts, so it moves. Rows that already contain such
    starts are returned unchanged.

    Args:
        rows: of one table.
        ends: those of them that may be the last of their stage.
    """

    def cell(row: Row, stage: int) -> tuple[Any, ...]:
        pair = frozenset((row.get("first"), row.get("second")))
        return row["arm"], stage, row.get("set"), pair

    begun = {(row["arm"], row["stage"]) for row in rows}
    last = {
        cell(row, row["stage"] + 1): row
        for row in sorted(ends, key=lambda row: int(row["step"]))
        if (row["arm"], row["stage"] + 1) in begun
    }
    known = {cell(row, row["stage"]) for row in rows if row["step"] == 0}
    names = {(row["arm"], row["stage"]): row.get("stage_name", "") for row in rows}
    starts = [
        {**row, "stage": at[1], "step": 0}
        | ({"stage_name": names[at[:2]]} if "stage_name" in row else {})
        for at, row in last.items()
        if at not in known
    ]
    moved = {id(row) for (*_, pair), row in last.items() if UPDATE in pair}
    return [*(dict(row) for row in rows if id(row) not in moved), *starts]


def draw_row(
    line: Sequence[Axes],
    stages: Sequence[int],
    arms: Sequence[str],
    rows: Sequence[Row],
    ends: Ends,
) -> None:
    """Draw one quantity: a panel per stage, with a line and its band per arm.

    A line joins measurements of one kind only: if rows state their number of examples (`examples`),
    measurements on an unusual number are rings beside the line. Two single points are joined by
    dots.

    Args:
        line: panels, one a stage.
        stages: their indices, in order.
        arms: names; their order gives colours and markers.
        rows: tidy: arm, stage, step, and the columns that `ends` reads.
        ends: value and interval of a row.
    """
    for axes, stage in zip(line, stages, strict=True):
        for index, arm in enumerate(arms):
            mine = [row for row in rows if (row["arm"], row["stage"]) == (arm, stage)]
            mine.sort(key=lambda row: row["step"])
            counts = Counter(row.get("examples") for row in mine).most_common(1)
            usual = counts[0][0] if counts else None
            same = [row for row in mine if row.get("examples") == usual]
            if same:
                x: Floats = np.array([row["step"] for row in same], dtype=np.float64)
                y, low, high = (np.array(part) for part in zip(*map(ends, same), strict=True))
                clear = np.array([not is_undetermined(row) for row in same])
                few = len(x) <= 2  # noqa: PLR2004  # nothing is known of what is between
                draw_line(axes, index, x, y, clear, 2.4, dotted=few)
                draw_band(axes, index, x, low, high)
            colour, marker, _ = arm_look(index)
            for row in mine:
                if row.get("examples") != usual:
                    value, below, above = ends(row)
                    look: dict[str, Any] = {"color": colour, "marker": marker}
                    look |= {"mfc": "none", "mew": 0.7}
                    axes.plot(row["step"], value, ls="none", ms=4.5, **look)
                    axes.vlines(row["step"], below, above, colour, lw=0.6)


def percent(row: Row, name: str = "exact_match") -> tuple[float, float, float]:
    """Return a score from 0 to 100, with its interval clipped to that range."""
    value, half = row[name], half_width(row)
    return value, float(np.maximum(value - half, 0)), float(np.minimum(value + half, 100))


def highest(rows: Sequence[Row], ends: Ends) -> float:
    """Return the largest value or upper end of an interval; 0 if there is none."""
    return max((x for row in rows for x in ends(row) if math.isfinite(x)), default=0.0)


def finish_percent(axes: Axes, most: float = 100.0) -> None:
    """Make an axis show 0 to 100, or less if everything is below the half of that.

    Args:
        axes: of a score in percent.
        most: the highest value on all axes that are to be compared with it.
    """
    top = next(top for top in (10, 20, 40, 50, 100) if most <= top or top == 100)  # noqa: PLR2004
    axes.set(ylim=(-top * _SLACK, top * (1 + _SLACK)), yticks=[0, top // 2, top])


def stage_title(stage: int, name: str) -> str:
    """Return `stage 2: facts`, or the number alone."""
    return f"stage {stage + 1}" + (f": {plain(name)}" if name else "")


def finish_steps(axes: Axes, steps: Sequence[int], *, log: bool) -> None:
    """Label the axis of steps, on a linear scale or a logarithmic one (linear from 0 to 1).

    Both start at 0, as a stage does.
    """
    last = max(steps)
    axes.set_xlabel("optimiser steps of the stage")
    if not log:
        axes.set_xlim(-_SLACK * last, (1 + _SLACK) * last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return
    length = np.log10(max(last, 1))  # decades
    ticks = [0, *(10**k for k in range(len(str(last))))]
    axes.set_xscale("symlog", linthresh=1, linscale=_BELOW)
    axes.set_xlim(-_SLACK * (length + _BELOW) / _BELOW, last * 10 ** (_SLACK * length))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
