"""The theory's scorecard: each claim's effect with its interval, every row on its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geomix.figures.labels import Row, plain
from geomix.figures.style import new_figure, settle, style
from geomix.figures.table import TableFigure

_LOOKS = {
    "supported": ("#0072B2", "o"),
    "negligible": ("#009E73", "s"),
    "refuted": ("#D55E00", "X"),
    "undetermined": ("0.55", "D"),
}
"""Colour and marker of each verdict."""

_ROW = 0.23
"""Height of a row, in inches."""

_LONGEST = 62


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a row for each claim that was measured.

    Args:
        rows: tidy: claim, measured, low, high, unit, n, verdict. Each row is scaled by its own
            largest number, which is printed beside it, since rows have different units.
    """
    known = [row for row in rows if np.isfinite(row["measured"])]
    with style():
        figure = new_figure(0.75 + _ROW * max(len(known), 1), 7.0)
        axes = figure.subplots()
        for index, row in enumerate(known):
            _row(axes, index, row)
        axes.axvline(0, color="0.6", lw=0.7, zorder=0)
        axes.set_xlim(-1.15, 1.15)
        axes.set_xticks([0], ["0"])
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.set_yticks(range(len(known)), [plain(str(r["claim"]), _LONGEST) for r in known])
        axes.tick_params(axis="y", length=0, labelsize=6.5)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("effect with its 95 % interval, each row on its own scale")
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(range(len(known)), [_number(row) for row in known])
        beside.tick_params(axis="y", length=0, labelsize=6.5)
        beside.spines["right"].set_visible(False)
        _legend(figure, known)
        settle(figure)
    return figure


def _row(axes: Axes, index: int, row: Row) -> None:
    ends = [float(row[key]) for key in ("measured", "low", "high")]
    size = float(np.nanmax(np.abs(ends))) or 1.0
    value, low, high = (end / size for end in ends)
    colour, marker = _LOOKS[str(row["verdict"])]
    if np.isfinite(low) and np.isfinite(high):
        axes.plot([low, high], [index, index], color=colour, lw=1.2, solid_capstyle="butt")
    filled = "white" if row["verdict"] == "undetermined" else colour
    look: dict[str, Any] = {"color": colour, "marker": marker, "mfc": filled, "ms": 4}
    axes.plot([value], [index], ls="none", **look)


def _number(row: Row) -> str:
    return f"{float(row['measured']):+.2g}, n = {row['n']}".replace("-", "−")


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    there = [name for name in _LOOKS if any(row["verdict"] == name for row in rows)]
    handles = [
        Line2D([], [], ls="none", ms=4, marker=marker, color=colour)
        if name != "undetermined"
        else Line2D([], [], ls="none", ms=4, marker=marker, color=colour, mfc="white")
        for name, (colour, marker) in _LOOKS.items()
        if name in there
    ]
    if handles:
        figure.legend(handles, there, loc="outside upper center", ncols=4, frameon=False)


def caption(rows: Sequence[Row]) -> str:
    """Return the caption."""
    left = sum(not np.isfinite(row["measured"]) for row in rows)
    text = (
        "The theory's claims: the measured effect with its 95 % interval over seeds, in the "
        "direction of the claim, each row on a scale of its own. The colour is the verdict; the "
        "number on the right is the effect in its own unit."
    )
    return text + (f" Not measured, left out: {left}." if left else "")


FIGURE = TableFigure(
    "The theory's claims with their intervals and verdicts.",
    ("claim", "measured", "low", "high", "unit", "n", "verdict"),
    draw,
)
