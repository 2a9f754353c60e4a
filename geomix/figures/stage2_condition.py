"""Figure: the condition for mixing into stage 2 to lower forgetting, along the steps of stage 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geomix.figures.labels import plain, set_symbol
from geomix.figures.style import COLOURS, LINES, MARKERS, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure

Row = Mapping[str, Any]

_NAME = 14
_PANELS = 3
"""Panels in a row."""

_LINEAR = 0.1
"""Absolute value up to which the vertical axis is linear; beyond, it is logarithmic."""

OWN = "D_B"
"""Set whose line is the threshold: the stage's own examples."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per arm: D_B's line is the threshold, above which the condition holds.

    Each point is a set's gradient along g_A, in units of ‖g_B‖. A marker is filled if the condition
    holds, open if it does not, and half-filled if it holds by size alone.

    Args:
        rows: tidy: arm, checkpoint, set, value, half_width, state (`threshold`, `true`, `by size`,
            `false`; for several seeds the most frequent).
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = math.ceil(len(arms) / _PANELS)
    with style():
        figure = new_figure(0.4 + 1.9 * lines, WIDTH)
        grid = figure.subplots(lines, min(len(arms), _PANELS), sharey=True, squeeze=False).ravel()
        for axes, arm in zip(grid, arms, strict=False):
            _panel(axes, [row for row in rows if row["arm"] == arm], sets)
            axes.set_title(plain(arm, _NAME))
        for axes in grid[len(arms) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("product with $g_A$\n" + r"(units of $\|g_A\|\,\|g_B\|$)")
        figure.legend(
            handles=[*(_handle(name, sets) for name in sets), *_states()],
            loc="outside lower center",
            ncols=len(sets) + 3,
            frameon=False,
            fontsize=6.5,
            handlelength=2.2,
            columnspacing=1.0,
        )
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Return the caption."""
    several = any(not math.isnan(row["half_width"]) for row in rows)
    spread = " Bars of error are Student's 95 % intervals over seeds." if several else ""
    return (
        "Whether a step of stage 2 would raise the loss of D_A less if it were mixed. Each point "
        "is the product of a set's gradient with that of D_A, in units of the norms of D_A's and "
        "D_B's. The condition holds where a line is above that of D_B; held-out facts in the place "
        "of D_M are the null. The axis is logarithmic beyond ±0.1. Half-filled markers hold only "
        "because the gradient is small." + spread
    )


def _panel(axes: Axes, rows: Sequence[Row], sets: Sequence[str]) -> None:
    labels = list(dict.fromkeys(row["checkpoint"] for row in rows))
    for name in sets:
        mine = [row for row in rows if row["set"] == name]
        if not mine:
            continue
        index = sets.index(name)
        at = [labels.index(row["checkpoint"]) for row in mine]
        values = [float(row["value"]) for row in mine]
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        axes.plot(at, values, color=colour, ls=line, lw=1.0)
        half = [0.0 if math.isnan(row["half_width"]) else float(row["half_width"]) for row in mine]
        if any(half):
            axes.errorbar(at, values, half, ls="none", ecolor=colour, elinewidth=0.6, capsize=1.5)
        for x, row in zip(at, mine, strict=True):
            axes.plot(x, float(row["value"]), **_marker(row["state"], index))
    axes.set_yscale("symlog", linthresh=_LINEAR)
    axes.axhline(0, color="0.6", lw=0.5)
    axes.set_xticks(range(len(labels)), [_label(name) for name in labels])
    axes.set_xlabel("checkpoint")


def _label(name: str) -> str:
    return rf"$\theta_{name}$" if len(name) == 1 else name[1:]


def _marker(state: str, index: int) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    fill = {"true": "full", "by size": "left"}.get(state, "full")
    face = colour if state in ("true", "by size") else "white"
    look = {
        "marker": MARKERS[index % len(MARKERS)],
        "ms": 4.2,
        "mec": colour,
        "mew": 0.8,
        "ls": "none",
    }
    if state == "threshold":
        return look | {"marker": "_", "ms": 5.0}
    return look | {"fillstyle": fill, "mfc": face, "markerfacecoloralt": "white"}


def _handle(name: str, sets: Sequence[str]) -> Line2D:
    index = sets.index(name)
    colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
    marker = "_" if name == OWN else MARKERS[index % len(MARKERS)]
    text = set_symbol(name, _NAME) + (" (threshold)" if name == OWN else "")
    return Line2D([], [], color=colour, ls=line, lw=1.0, marker=marker, ms=4, label=text)


def _states() -> list[Line2D]:
    looks: dict[str, tuple[Any, str]] = {
        "holds": ("full", "0.3"),
        "by size": ("left", "0.3"),
        "fails": ("full", "white"),
    }
    return [
        Line2D([], [], ls="none", marker="o", ms=4, mec="0.3", mew=0.8, mfc=face, fillstyle=fill,
               markerfacecoloralt="white", label=text)
        for text, (fill, face) in looks.items()
    ]  # fmt: skip


FIGURE = TableFigure(
    "The stage-2 condition along the steps of stage 2, an arm a panel.",
    ("arm", "checkpoint", "set", "value", "half_width", "state"),
    draw,
)
