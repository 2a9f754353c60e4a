"""Figure: what is left of a set after its own stage, and the law that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from geomix.figures.labels import Row, of_seeds
from geomix.figures.lines import limit_to_values, name_arms, write_blank
from geomix.figures.style import WIDTH, arm_look, new_figure, settle, style
from geomix.figures.table import TableFigure

MEASURED = "measured"

_NEAR_ZERO = 0.2
"""Retention below which 0 has a line."""

_LABELS = {
    "steps": "optimiser steps after the stage",
    "tokens": "tokens trained on after the stage",
    "length": "length of the weights' path, Σ‖Δθ‖",
}


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per time axis: measured retention as markers, the best law of an arm as a line.

    Args:
        rows: tidy: arm, against (the time axis), law (`measured`, or a law's name), time,
            retention (1 at the end of the set's own stage), half_width (nan without an interval).
    """
    axes_names = list(dict.fromkeys(row["against"] for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    with style():
        width = WIDTH * (0.35 + 0.65 * min(len(axes_names), 3) / 3)
        figure = new_figure(2.6, width)
        panels = figure.subplots(1, max(1, len(axes_names)), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, axes_names, strict=False):
            mine = [row for row in rows if row["against"] == name]
            for index, arm in enumerate(arms):
                _arm(axes, index, [row for row in mine if row["arm"] == arm])
            _finish(axes, _LABELS.get(name, name))
            if not any(row["law"] != MEASURED for row in mine):
                axes.set_title("no law", color="0.45")
        value, half = (np.array([float(row[key]) for row in rows]) for key in _COLUMNS[1:])
        limit_to_values(panels[0], np.append(value, 1.0), np.append(half, np.nan))
        if panels[0].get_ylim()[0] < _NEAR_ZERO:
            for axes in panels:
                axes.axhline(0, color="0.8", lw=0.6, zorder=0)
        if not any(np.isfinite(row["retention"]) for row in rows):
            write_blank(panels[0], "no retention")
        panels[0].set_ylabel("retention R")
        name_arms(figure, arms)
        settle(figure)
    return figure


def _arm(axes: Axes, index: int, rows: Sequence[Row]) -> None:
    """Draw an arm's points, their intervals, and its law."""
    colour, marker, line = arm_look(index)
    points = [row for row in rows if row["law"] == MEASURED]
    x, y, half = (np.array([row[key] for row in points]) for key in _COLUMNS)
    look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 3, "ls": "none"}
    axes.plot(x, y, mfc="white", mew=0.6, **look)
    there = np.isfinite(half)
    axes.vlines(x[there], (y - half)[there], (y + half)[there], colour, lw=0.6, alpha=0.6)
    law = [row for row in rows if row["law"] != MEASURED]
    axes.plot(*([row[key] for row in law] for key in _COLUMNS[:2]), color=colour, ls=line, lw=1.1)


_COLUMNS = ("time", "retention", "half_width")


def _finish(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1.0,) if high > 1e3 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
    axes.axhline(1, color="0.8", lw=0.6, zorder=0)
    axes.set_xlabel(label)


def _short(value: float) -> str:
    """Return 2000 as 2k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    laws = {row["law"] for row in rows} - {MEASURED}
    text = (
        "Retention R, the share that is left of the log-probability which the set's own stage "
        "added to its answers: 1 at that stage's end, 0 as before training. Markers are "
        "evaluations, each panel against another time since then, on a logarithmic axis."
    )
    if laws:
        text += " A line is the arm's best law by AICc. Long intervals run out of the panel."
    return f"{text} {of_seeds(rows)}"


FIGURE = TableFigure(
    "What is left of a set after its own stage, with its law of retention.",
    ("arm", "against", "law", "time", "retention", "half_width"),
    draw,
)
