"""Figure: from one arm's loss after stage 2 to another's, by the parts of their difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomix.figures.labels import plain
from geomix.figures.style import COLOURS, COLUMN, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure

Row = Mapping[str, Any]

_NAME = 12
"""Most characters of an arm's name."""

_ARM = "0.72"
_LOWER, _HIGHER = COLOURS[0], COLOURS[1]
_WIDE = 5
"""Number of bars from which a figure has the page's width."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per chain of arms: losses of D_A after stage 2 as grey bars, and the parts.

    A part that lowers the loss from one arm to the next is blue and hatched, one that raises it is
    orange. Error bars are Student's 95 % intervals over seeds, if there are several.

    Args:
        rows: tidy, in the order of the bars: chain, bar, kind (`arm` or `part`), base and value
            (nats), half_width.
    """
    chains = list(dict.fromkeys(row["chain"] for row in rows))
    counts = [sum(row["chain"] == chain for row in rows) for chain in chains]
    width = WIDTH if max(counts) > _WIDE or len(chains) > 1 else COLUMN
    with style():
        figure = new_figure(2.5, width)
        grid = figure.subplots(1, len(chains), sharey=True, squeeze=False, width_ratios=counts)[0]
        for axes, chain in zip(grid, chains, strict=True):
            _chain(axes, [row for row in rows if row["chain"] == chain])
        grid[0].set_ylabel(r"loss of $D_A$ after stage 2 (nats)")
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Return the caption."""
    several = any(not math.isnan(row["half_width"]) for row in rows)
    spread = " Bars of error are Student's 95 % intervals over seeds." if several else ""
    return (
        "From one arm's loss of D_A after stage 2 to the next one's. Grey: an arm's loss. Between "
        "two arms their difference by part: Δ₁ is there when stage 1 ends, Δ₂ is of first order in "
        "what stage 2 moved, Δ₃ is the rest. Blue, hatched: lowers the loss; orange: raises it."
        + spread
    )


def _chain(axes: Axes, rows: Sequence[Row]) -> None:
    for x, row in enumerate(rows):
        arm, value = row["kind"] == "arm", float(row["value"])
        look: dict[str, Any] = {"color": _ARM, "edgecolor": "0.3"}
        if not arm:
            colour, hatch = (_LOWER, "////") if value < 0 else (_HIGHER, "")
            look = {"facecolor": colour, "hatch": hatch, "edgecolor": "white"}
        bottom, half = float(row["base"]), float(row["half_width"])
        axes.bar(x, value, 0.72, bottom, linewidth=0.4, **look)
        if not math.isnan(half):
            axes.errorbar(x, bottom + value, half, color="black", elinewidth=0.7, capsize=1.5)
        top = max(bottom, bottom + value) + (0.0 if math.isnan(half) else half)
        text = f"{value:.3f}" if arm else f"{value:+.3f}"
        axes.annotate(
            text.replace("-", "−"), (x, top), (0, 2), textcoords="offset points",
            ha="center", va="bottom", size=6.5,
        )  # fmt: skip
        if x + 1 < len(rows):
            level = bottom + value
            axes.plot([x + 0.36, x + 0.64], [level, level], color="0.5", lw=0.5)
        if not arm:  # a part too small for a bar
            axes.plot([x - 0.36, x + 0.36], [bottom, bottom], color="0.5", lw=0.5)
    names = [plain(row["bar"], _NAME) for row in rows]
    axes.set_xticks(range(len(rows)), names)
    for label, row in zip(axes.get_xticklabels(), rows, strict=True):
        label.set(weight="bold" if row["kind"] == "arm" else "normal")
    axes.axhline(0, color="0.3", lw=0.6)
    axes.margins(y=0.1)


FIGURE = TableFigure(
    "The difference of two arms' losses by Δ₁, Δ₂ and Δ₃.",
    ("chain", "bar", "kind", "base", "value", "half_width"),
    draw,
)
