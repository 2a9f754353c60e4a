"""Figure: norm, cosine and length of each segment of a stage's path, a line an arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from geomix.figures.labels import Row, plain
from geomix.figures.lines import draw_line, name_arms
from geomix.figures.style import new_figure, settle, style
from geomix.figures.table import TableFigure
from geomix.measures.cosine import Floats

FINE = "K"
"""Partition to draw: all segments."""

_PANELS = (
    ("change", "change of the loss\n[nats a segment]", "linear"),
    ("norm", "‖mean gradient‖\n[nats a unit]", "log"),
    ("cosine", "cosine of gradient\nand displacement", "linear"),
    ("length", "‖displacement‖\n[a segment]", "log"),
)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw four panels along the stage: the change and its three factors.

    Args:
        rows: tidy: arm, partition, segment, share (of the stage's steps, the segment's middle),
            change, norm, cosine, length, fails ("" where the quadrature holds). Rows that share all
            but their seed are averaged.
    """
    mine = [row for row in rows if row["partition"] == FINE]
    arms = list(dict.fromkeys(row["arm"] for row in mine))
    with style():
        figure = new_figure(3.9)
        panels = figure.subplots(2, 2, sharex=True).ravel()
        for axes, (key, label, scale) in zip(panels, _PANELS, strict=True):
            for index, arm in enumerate(arms):
                _line(axes, index, [row for row in mine if row["arm"] == arm], key)
            axes.set_ylabel(label)
            axes.set_yscale(scale)
            if scale == "log":
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            else:
                axes.axhline(0, color="0.8", lw=0.6, zorder=0)
                axes.yaxis.set_major_locator(MaxNLocator(5))
        for axes in panels[2:]:
            axes.set_xlabel("share of the stage's steps")
        name_arms(figure, arms)
        settle(figure)
    return figure


def _line(axes: Axes, index: int, rows: Sequence[Row], key: str) -> None:
    segments = sorted({row["segment"] for row in rows})
    if not segments:
        return
    there = [[row for row in rows if row["segment"] == segment] for segment in segments]
    x, y = (_mean(there, name) for name in ("share", key))
    clear = np.array([not any(row["fails"] for row in one) for one in there])
    draw_line(axes, index, x, y, clear)


def _mean(there: Sequence[Sequence[Row]], key: str) -> Floats:
    return np.array([np.mean([row[key] for row in one]) for one in there], dtype=np.float64)


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    seeds = len({row.get("seed") for row in rows})
    text = (
        "Each straight segment between two checkpoints of the stage: the change of the loss along "
        "it by Simpson's rule, and the three factors whose product it is. A longer segment has a "
        "longer displacement: compare arms, not segments."
    )
    fails: dict[str, Any] = {row["arm"]: row["fails"] for row in rows if row["fails"]}
    if fails:
        text += f" Faint: the quadrature does not hold ({', '.join(plain(arm) for arm in fails)})."
    return text + (f" Means over {seeds} seeds." if seeds > 1 else "")


FIGURE = TableFigure(
    "Norm, cosine and length of a path's segments, by arm.",
    ("arm", "partition", "segment", "share", "change", "norm", "cosine", "length", "fails"),
    draw,
)
