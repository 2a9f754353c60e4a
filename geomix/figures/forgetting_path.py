"""Figure: contribution of each layer to the change of a loss, by block and by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from geomix.figures.labels import plain, set_symbol
from geomix.figures.style import COLOURS, COLUMN, new_figure, settle, style
from geomix.figures.table import TableFigure

_ROW = 1.15
"""Height of an arm's row, in inches."""

_NAME = 14
"""Most characters of a name."""

_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")
"""Hatches that repeat the colours, for print in grey."""

_MANY = 10
"""Number of layers above which only the first, middle and last are named."""

_TOTAL, _WHOLE = "total", "all"

Row = Mapping[str, Any]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a row per arm: the change stacked by block of each layer, and by source of the update.

    Contributions that lower the loss hang below zero; a dot marks the sum, with Student's 95 %
    interval over several seeds. Without sources the only column is by block.

    Args:
        rows: tidy: arm, set, layer, block, part, change (nats), half_width; the CSV has the same.
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    blocks = sorted({row["block"] for row in rows} - {_WHOLE})
    parts = [part for part in dict.fromkeys(row["part"] for row in rows) if part != _TOTAL]
    columns = [("block", blocks)] + ([("part", parts)] if parts else [])
    with style():
        figure = new_figure(0.75 + _ROW * len(arms), COLUMN)
        grid = figure.subplots(len(arms), len(columns), sharex=True, sharey="row", squeeze=False)
        for line, arm in zip(grid, arms, strict=True):
            for axes, (key, names) in zip(line, columns, strict=True):
                mine = [r for r in rows if r["arm"] == arm]
                cells = [r for r in mine if r["block"] != _WHOLE]
                totals = key == "block"
                shown = [r for r in cells if (r["part"] == _TOTAL) == totals]
                axes.margins(y=0.12)
                _stack(axes, shown, key, names, layers)
                _dots(axes, [r for r in mine if r["block"] == _WHOLE], layers)
            line[0].set_ylabel(plain(arm, _NAME))
            line[0].yaxis.set_major_locator(MaxNLocator(4))
        for axes, (key, names) in zip(grid[0], columns, strict=True):
            _legend(axes, key, names)
        for axes in grid[-1]:
            _name(axes, layers)
        figure.supylabel(f"change of {set_symbol(rows[0]['set'], _NAME)}'s loss (nats)", size=7.5)
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    name = plain(rows[0]["set"]).replace(r"\$", "$")
    return (
        f"What each layer added to the change of {name}'s loss over a stage, in nats: rows are "
        "arms, bars are stacked by block of the layer and, where it is known, by source of the "
        "update. What lowers the loss hangs below zero. Dots are sums, with Student's 95 % "
        "interval over seeds where there are several."
    )


def _look(key: str, index: int) -> dict[str, Any]:
    """Return a bar's style; sources use the palette from its other end, so colours stay unique."""
    at = index if key == "block" else -2 - index
    hatch = _HATCHES[index % len(_HATCHES)]
    return {"facecolor": COLOURS[at % len(COLOURS)], "hatch": hatch, "edgecolor": "white"}


def _stack(axes: Axes, rows: Sequence[Row], key: str, names: list[str], layers: list[str]) -> None:
    above, below = np.zeros(len(layers)), np.zeros(len(layers))
    for index, name in enumerate(names):
        heights = np.zeros(len(layers))
        for row in rows:
            if row[key] == name:
                heights[layers.index(row["layer"])] += row["change"]
        bottom = np.where(heights >= 0, above, below)
        axes.bar(range(len(layers)), heights, 0.8, bottom, linewidth=0.3, **_look(key, index))
        above += np.maximum(heights, 0)
        below += np.minimum(heights, 0)
    axes.axhline(0, color="0.3", lw=0.6)


def _dots(axes: Axes, rows: Sequence[Row], layers: list[str]) -> None:
    """Draw the sum of each layer, with its interval over seeds if there is one."""
    at = [layers.index(row["layer"]) for row in rows]
    half = [0.0 if np.isnan(row["half_width"]) else row["half_width"] for row in rows]
    look: dict[str, Any] = {"mfc": "white", "mec": "black", "mew": 0.7, "ms": 2.6}
    look |= {"ecolor": "black", "elinewidth": 0.7, "capsize": 1.5 if any(half) else 0}
    axes.errorbar(at, [row["change"] for row in rows], half, ls="none", marker="o", **look)


def _legend(axes: Axes, key: str, names: Sequence[str]) -> None:
    handles = [Patch(linewidth=0.3, **_look(key, index)) for index in range(len(names))]
    axes.legend(
        handles,
        [plain(name, _NAME) for name in names],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        title="by block" if key == "block" else "by source",
        handlelength=1.4,
        columnspacing=0.8,
        borderaxespad=0.2,
        fontsize=6.5,
        title_fontsize=7,
    )


def _name(axes: Axes, layers: Sequence[str]) -> None:
    """Label layers by number (three if there are many); label other groups by name, vertically."""
    numbered = [i for i, name in enumerate(layers) if name.startswith("layer ")]
    few = {numbered[0], numbered[len(numbered) // 2], numbered[-1]} if numbered else set()
    shown = [
        i for i in range(len(layers)) if i not in numbered or len(numbered) <= _MANY or i in few
    ]
    names = [layers[i].removeprefix("layer ") for i in shown]
    names = [name.replace("embedding", "emb.").replace(" (tied)", "") for name in names]
    names = [plain(name) for name in names]
    axes.set_xticks(shown, names)
    for label in axes.get_xticklabels():
        if not label.get_text().isdigit():
            label.set(rotation=90)
    axes.set_xlabel("layer")


FIGURE = TableFigure(
    "The change of a loss by layer, block and source.",
    ("arm", "set", "layer", "block", "part", "change", "half_width"),
    draw,
)
