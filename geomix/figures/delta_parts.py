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

_NAME = 14
"""Most characters of an arm's name."""

_LOWER, _HIGHER = COLOURS[0], COLOURS[1]
_WIDE = 5
"""Number of places from which a panel does not fit into one column."""

_TEN = 10.0
"""Value from which a number has two decimal places, since three do not fit."""

_HALF = 0.36
"""Half the width of a bar."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per chain of arms: the arms' losses of D_A as levels, the parts between them.

    A part that lowers the loss from one arm to the next is blue and hatched, one that raises it is
    orange. Error bars are Student's 95 % intervals over seeds, if there are several. The loss axis
    holds the levels and need not begin at 0; it is the same in all panels.

    Args:
        rows: tidy, in the order of the places: chain, bar, kind (`arm` or `part`), base and value
            (nats), half_width.
    """
    chains = list(dict.fromkeys(row["chain"] for row in rows))
    longest = max(sum(row["chain"] == chain for row in rows) for chain in chains)
    width = WIDTH if longest > _WIDE or len(chains) > 1 else COLUMN
    across = min(2, len(chains))
    down = math.ceil(len(chains) / across)
    with style():
        figure = new_figure(2.3 * down + 0.2, width)
        grid = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes in grid.flat[len(chains) :]:
            axes.set_axis_off()
        for axes, chain in zip(grid.flat, chains, strict=False):
            _chain(axes, [row for row in rows if row["chain"] == chain])
        for line in grid:
            line[0].set_ylabel(r"$D_A$'s loss after stage 2 (nats)")
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Return the caption."""
    several = any(not math.isnan(row["half_width"]) for row in rows)
    spread = " Bars of error are Student's 95 % intervals over seeds." if several else ""
    return (
        "From one arm's loss of D_A after stage 2 to the next one's. A thick line is an arm's "
        "loss; the axis need not begin at 0. Between two arms is their difference by part: Δ₁ is "
        "there when stage 1 ends, Δ₂ is of first order in what stage 2 moved, Δ₃ is the rest. "
        "Blue, hatched: lowers the loss; orange: raises it." + spread
    )


def _chain(axes: Axes, rows: Sequence[Row]) -> None:
    for x, row in enumerate(rows):
        level = float(row["base"]) + float(row["value"])
        top = _level(axes, x, level) if row["kind"] == "arm" else _part(axes, x, row)
        half = float(row["half_width"])
        if not math.isnan(half):
            axes.errorbar(x, level, half, color="black", elinewidth=0.7, capsize=1.5)
            top = max(top, level + half)
        digits = 3 if abs(row["value"]) < _TEN else 2
        text = f"{row['value']:{'' if row['kind'] == 'arm' else '+'}.{digits}f}"
        axes.annotate(
            text.replace("-", "−"), (x, top), (0, 2), textcoords="offset points",
            ha="center", va="bottom", size=6,
        )  # fmt: skip
        if x + 1 < len(rows):
            axes.plot([x + _HALF, x + 1 - _HALF], [level, level], color="0.5", lw=0.5)
    parts = [x for x, row in enumerate(rows) if row["kind"] == "part"]
    arms = [x for x, row in enumerate(rows) if row["kind"] == "arm"]
    axes.set_xticks(parts, [rows[x]["bar"] for x in parts])
    # A line of their own, since names are wider than a place.
    axes.set_xticks(arms, [plain(rows[x]["bar"], _NAME) for x in arms], minor=True, weight="bold")
    axes.tick_params(axis="x", which="minor", length=0, pad=12, labelsize=7)
    axes.use_sticky_edges = False
    axes.margins(y=0.12)


def _level(axes: Axes, x: int, level: float) -> float:
    """Draw an arm's loss; return the highest point."""
    axes.plot([x - _HALF, x + _HALF], [level, level], color="0.25", lw=2.5, gid="level")
    return level


def _part(axes: Axes, x: int, row: Row) -> float:
    """Draw a part as a bar from the loss before it; return the highest point."""
    value, base = float(row["value"]), float(row["base"])
    colour, hatch = (_LOWER, "////") if value < 0 else (_HIGHER, "")
    axes.bar(
        x, value, 2 * _HALF, base, linewidth=0.4, facecolor=colour, hatch=hatch, edgecolor="white"
    )
    axes.plot([x - _HALF, x + _HALF], [base, base], color="0.5", lw=0.5)  # a bar of no height
    return max(base, base + value)


FIGURE = TableFigure(
    "The difference of two arms' losses by Δ₁, Δ₂ and Δ₃.",
    ("chain", "bar", "kind", "base", "value", "half_width"),
    draw,
)
