"""Figure: the loss along a displacement, local models of it, and the reach of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from geomix.figures.labels import Row, plain
from geomix.figures.lines import NULL_GREY
from geomix.figures.style import COLOURS, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure
from geomix.measures.cosine import Floats

MEASURED = "measured"

_REAL = "real"

_LOOKS: dict[str, tuple[str, Any]] = {
    "first order": (COLOURS[0], ":"),
    "Hessian": (COLOURS[1], "--"),
    "Gauss–Newton": (COLOURS[2], "-."),
}

_ACROSS = 3

_ROOM = 2.0
"""Limit of a panel's axis, as a multiple of the largest measured change."""

_LINEAR = 1e-3
"""Below this share of the largest measured change the axis is linear, beyond it logarithmic."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel an arm: the measured change and its models against the displacement's share.

    Args:
        rows: tidy: arm, draw (`real` or a permuted one), t, curve (`measured` or a model), change
            in nats, reach as a share of the displacement. Rows that share all but their seed are
            averaged.
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    across = min(len(arms), _ACROSS)
    down = -(-len(arms) // across)
    with style():
        figure = new_figure(0.5 + 1.9 * down, WIDTH if across > 1 else WIDTH * 0.6)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, arm in zip(panels, arms, strict=False):
            _panel(axes, [row for row in rows if row["arm"] == arm])
            axes.set_title(plain(arm))
        for axes in panels[len(arms) :]:
            axes.set_visible(False)
        for axes in panels[::across]:
            axes.set_ylabel("change of the loss [nats]")
        _legend(figure, rows)
        settle(figure)
    return figure


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    real = [row for row in rows if row["draw"] == _REAL]
    for draw in dict.fromkeys(row["draw"] for row in rows if row["draw"] != _REAL):
        mine = [row for row in rows if row["draw"] == draw and row["curve"] == MEASURED]
        axes.plot(*_curve(mine), color=NULL_GREY, lw=0.7)
    t, measured = _curve([row for row in real if row["curve"] == MEASURED])
    axes.plot(t, measured, color="black", lw=1.4)
    low, high = min(0.0, float(measured.min())), max(0.0, float(measured.max()))
    most = max(-low, high) or 1.0
    axes.set_yscale("symlog", linthresh=_LINEAR * most, linscale=0.7)
    axes.set_ylim(-_ROOM * most, _ROOM * most)
    axes.yaxis.set_major_locator(FixedLocator(_ticks(most)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    for name, (colour, line) in _LOOKS.items():
        mine = [row for row in real if row["curve"] == name]
        if not mine:
            continue
        axes.plot(*_curve(mine), color=colour, ls=line, lw=1.0)
        for reach in sorted({float(row["reach"]) for row in mine if row["reach"] > 0}):
            at = float(np.interp(reach, t, measured))
            axes.plot([reach], [at], ls="none", marker="|", ms=9, mew=1.3, color=colour)
    axes.axhline(0, color="0.8", lw=0.6, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("share of the displacement")


def _ticks(most: float) -> list[float]:
    """0 and the powers of ten on both sides of it where the axis is logarithmic."""
    last = int(np.floor(np.log10(_ROOM * most)))
    first = int(np.ceil(np.log10(_LINEAR * most)))
    powers = [10.0**k for k in range(first, last + 1)]
    return [*(-power for power in reversed(powers)), 0.0, *powers]


def _curve(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """Return points and mean over seeds."""
    points = sorted({float(row["t"]) for row in rows})
    values = [[row["change"] for row in rows if row["t"] == point] for point in points]
    return np.array(points), np.array([np.mean(value) for value in values])


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    there = {row["curve"] for row in rows}
    handles = [Line2D([], [], color="black", lw=1.4)]
    names = ["measured"]
    for name, (colour, line) in _LOOKS.items():
        if name in there:
            handles.append(Line2D([], [], color=colour, ls=line, lw=1.0))
            names.append(name)
    if any(row["draw"] != _REAL for row in rows):
        handles.append(Line2D([], [], color=NULL_GREY, lw=0.7))
        names.append("permuted displacement")
    look: dict[str, Any] = {"frameon": False, "handlelength": 2.6, "columnspacing": 1.2}
    most = 5 if figure.get_figwidth() > WIDTH * 0.8 else 3
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), most), **look)


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    null = any(row["draw"] != _REAL for row in rows)
    seeds = len({row.get("seed") for row in rows})
    text = (
        "Change of the loss along the straight line of the displacement, from its start (left) to "
        "its end (1); both axes logarithmic, changes near 0 linear. Black is measured; the other "
        "lines are what the loss's expansion at the start has for it. A tick marks how far a model "
        "holds: within 10 % of the largest change so far, there and everywhere before."
    )
    if null:
        text += " Grey: the displacement's values permuted within each tensor."
    return text + (f" Means over {seeds} seeds; a tick a seed." if seeds > 1 else "")


FIGURE = TableFigure(
    "The loss along a displacement, its local models, and how far each holds.",
    ("arm", "draw", "t", "curve", "change", "reach"),
    draw,
)
