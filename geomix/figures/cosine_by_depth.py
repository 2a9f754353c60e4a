"""Figure: cosines and norms of the sets' gradients by depth, at the main checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from geomix.figures.labels import (
    MARKS,
    NULLS,
    UPDATE,
    WHOLE,
    Row,
    checkpoint_symbol,
    direction_symbol,
    is_null,
    is_undetermined,
    of_seeds,
    ordered,
    parted,
    short_group,
    spread,
    stacked,
    unlike,
    why_blank,
)
from geomix.figures.lines import (
    FAINT,
    MANY,
    NULL_GREY,
    draw_band,
    draw_line,
    marks_of,
    name_arms,
    write_blank,
)
from geomix.figures.style import arm_look, new_figure, settle, style
from geomix.figures.table import TableFigure, checkpoints_of
from geomix.measures.cosine import Floats

_ROW = 0.98
"""Height of a checkpoint's row, in inches."""

_POINTS = 380.0
"""Total width of the panels of a row, in points."""

_NAME = 7.5
"""Width of a vertical name, in points."""

_WORD = 20.0
"""Width of the word `layer` with its margin, in points."""

_DIGIT = 5.5
"""Distance of two one-digit numbers, in points."""

_DECADES = 2
"""Decades below which a logarithmic axis is extended to whole decades, so that it has labels."""

_LEAST = 0.25
"""Least half-range of the cosines' axis, so that noise is not magnified."""

_WIDE, _MANY_PANELS = 7, 8
"""Numbers of adjacent panels above which titles are smaller, and have several lines."""


def draw(rows: Sequence[Row], checkpoints: Sequence[str], focus: str = "D_A") -> Figure:
    """Draw a row per checkpoint: left the cosine of D_A with each other set, right the norms.

    One line an arm, through the layers; embedding, final norm and head are separate markers, and so
    is the whole model, which is not a mean of the others. By module, head or parameter every group
    is a marker, and a part of a layer is placed at its layer. Filled markers are determined, open
    and faint ones undetermined. Undefined cosines are left out. Intervals in the table become bands
    along the layers and bars elsewhere; one as wide as the axis is not drawn.

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric; its CSV has the same
            columns.
        checkpoints: labels of the checkpoints to draw, in order.
        focus: the set in D_A's place.
    """
    unlike(rows, "arm", "moment", "group", "first", "second")
    table = Table(rows, focus)
    columns = [(name, "cosine") for name in table.sets if name != focus]
    gap = len(columns)
    columns += [(name, "norm") for name in table.sets if name != UPDATE and not is_null(name)]
    axis = Depth(table, _POINTS / len(columns))
    with style():
        high = len(columns) > _MANY_PANELS or any(parted(name)[1] for name, _ in columns)
        figure = new_figure(0.35 + 0.2 * high + _ROW * len(checkpoints) + axis.height)
        ratios = [1.0] * len(columns)
        ratios.insert(gap, 0.1)
        grid = figure.add_gridspec(len(checkpoints), len(ratios), width_ratios=ratios)
        panels: list[list[Axes]] = []
        for row, checkpoint in enumerate(checkpoints):
            line: list[Axes] = []
            for column, (name, measure) in enumerate(columns):
                start = gap * (column >= gap)
                shared = (panels[0] if row else line)[start] if row or column > start else None
                cell = grid[row, column + (column >= gap)]
                axes = figure.add_subplot(cell, sharex=shared, sharey=shared)
                axes.tick_params(labelleft=column == start, labelbottom=row == len(checkpoints) - 1)
                axes.margins(x=0.04)
                if not axis.draw(axes, checkpoint, name, measure):
                    write_blank(axes, why_blank(name, checkpoint))
                line.append(axes)
            line[0].set_ylabel(
                checkpoint_symbol(checkpoint), rotation=0, ha="right", va="center", size=9
            )
            panels.append(line)
        for axes, (name, measure) in zip(panels[0], columns, strict=True):
            one, other = direction_symbol(focus), direction_symbol(name)
            title = f"cos({one}, {other})" if measure == "cosine" else f"|{other}|"
            title = stacked(title) if high else title
            axes.set_title(title, size=8 if len(columns) <= _WIDE else 6.5)
        finish_cosines([axes for line in panels for axes in line[:gap]])
        _finish_norms([axes for line in panels for axes in line[gap:]])
        for axes in panels[-1]:
            axis.name(axes)
        shown = [row for row in rows if row["moment"] in checkpoints]
        name_arms(figure, table.arms, marks_of(shown))
        settle(figure)
    return figure


def caption(rows: Sequence[Row], focus: str = "D_A") -> str:
    """Describe the figure in sentences."""
    null = "the null of" if focus == "D_A" else "D_A's"
    return (
        "Cosines (left) and norms (right) of the sets' gradients by depth. Rows are moments of "
        "training: θ_A is the end of stage 1, θ_A+k is k steps later. Columns are pairs of "
        f"{focus} with another set, held-out being {null} unseen examples, then norms; an arm "
        f"is a line through the layers, and marks beside it are other groups and the whole model. "
        f"{MARKS} {of_seeds(rows)}"
    )


class Depth:
    """Horizontal axis: the position of each group, and the drawing of arms along it.

    Args:
        table: the data.
        points: width of a panel, in points.
    """

    def __init__(self, table: Table, points: float) -> None:
        self.table, self.points = table, points
        self.groups, self.places = list(table.places), list(table.places.values())
        self.names = sorted(dict.fromkeys(self.places), key=lambda place: place == WHOLE)
        self.layers = [i for i, name in enumerate(self.names) if name.startswith("layer ")]
        single = len(self.names) - len(self.layers) + bool(self.layers)
        # A group that is no layer gets the width of its vertical name, or names would collide.
        self.wide = max(1.0, _NAME * len(self.layers) / max(points - _NAME * single, points / 4))
        steps = [
            1.0 if not self.layers or (i in self.layers and i - 1 in self.layers) else self.wide
            for i in range(len(self.names))
        ]
        self.at = np.cumsum(steps)
        where = dict(zip(self.names, self.at, strict=True))
        self.x = np.array([where[place] for place in self.places])
        # A line runs through whole layers: parts of one, such as its heads, share a position.
        self.stack = np.array([g in self.names and g.startswith("layer ") for g in self.groups])

    @property
    def height(self) -> float:
        """Height of the longest vertical name, in inches."""
        return 0.15 + 0.062 * max(len(short_group(name)) for name in self.names)

    def draw(self, axes: Axes, checkpoint: str, name: str, measure: str) -> bool:
        """Draw one line or row of markers an arm; return whether there is anything."""
        anything = False
        arms, x, stack = self.table.arms, self.x, self.stack
        size = 3.0 if len(self.groups) <= MANY else 2.0
        for index, arm in enumerate(arms):
            y = self.table.values(arm, checkpoint, name, measure)
            anything |= bool(np.isfinite(y).any())
            low, high, clear = self.table.interval(arm, checkpoint, name, measure)
            colour, marker, _ = arm_look(index)
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": size}
            draw_line(axes, index, x[stack], y[stack], clear[stack], size)
            draw_band(axes, index, x[stack], low[stack], high[stack])
            at = x + self._shift(index)
            for mask, alpha, face in ((clear, 1.0, colour), (~clear, FAINT, "white")):
                i = ~stack & mask
                if i.any():
                    axes.plot(at[i], y[i], ls="none", mfc=face, mew=0.7, alpha=alpha, **look)
                i &= np.isfinite(low)
                axes.vlines(at[i], low[i], high[i], colour, lw=0.6, alpha=alpha, zorder=1)
        axes.axvline(self.at[-1] - 0.55 * self.wide, color="0.8", lw=0.5, zorder=0)
        return anything

    def draw_null(self, axes: Axes, checkpoint: str) -> bool:
        """Draw the held-out set's cosines in grey behind an arm's; return whether there are any."""
        anything = False
        for index, arm in enumerate(self.table.arms):
            y = self.table.values(arm, checkpoint, NULLS[0], "cosine")
            anything |= bool(np.isfinite(y).any())
            look: dict[str, Any] = {"color": NULL_GREY, "lw": 0.9, "zorder": 1.5}
            stack = self.stack
            axes.plot(self.x[stack], y[stack], ls=arm_look(index)[2], gid="null", **look)
            at = self.x[~stack] + self._shift(index)
            axes.plot(at, y[~stack], ls="none", marker="_", ms=4, mew=1, gid="null", **look)
        return anything

    def _shift(self, arm: int) -> float:
        """Return the offset of an arm's single markers from the middle of their positions."""
        most = 0.3 * self.wide if len(self.names) == len(self.groups) else 0.2
        count = len(self.table.arms)
        return (arm - (count - 1) / 2) * min(most, 0.5 * self.wide / count)

    def _numbered(self) -> list[int]:
        """Return the layers whose numbers fit."""
        if not self.layers:
            return []
        first, last = self.layers[0], self.layers[-1]
        stretch = self.points * float((self.at[last] - self.at[first]) / np.ptp(self.at))
        if len(self.layers) <= MANY and stretch >= _DIGIT * (last - first):
            return self.layers
        middle = (first + last + 1) // 2
        return [first, last] if stretch < 4 * _DIGIT else [first, middle, last]

    def _word_fits(self) -> bool:
        """Return whether `layer` below the numbers keeps clear of adjacent vertical names."""
        if not self.layers:
            return False
        first, last = self.layers[0], self.layers[-1]
        middle = float(self.at[self.layers].mean())
        ends = [self.at[i] for i in (first - 1, last + 1) if 0 <= i < len(self.at)]
        room = min((abs(float(end) - middle) for end in ends), default=math.inf)
        scale = self.points / (1.08 * float(np.ptp(self.at)))
        return room * scale >= _WORD / 2 + _NAME / 2

    def name(self, axes: Axes) -> None:
        """Label layers by number (at most three if there are many); label other groups by name."""
        numbered = self._numbered()
        shown = [i for i in range(len(self.names)) if i not in self.layers or i in numbered]
        texts = {i: short_group(self.names[i]) for i in shown}
        whole = all(texts[i].isdigit() for i in numbered) and self._word_fits()
        if not whole:  # vertical names of heads leave no room for a word below them
            texts |= {i: self.names[i] for i in numbered}
        axes.set_xticks(self.at[shown], list(texts.values()))
        if self.layers and whole:
            under = axes.get_xaxis_transform()
            middle = float(self.at[self.layers].mean())
            axes.text(middle, -0.23, "layer", size=7, transform=under, ha="center", va="top")
        for label in axes.get_xticklabels():
            if not label.get_text().isdigit():
                label.set(rotation=90, size=6.5 if len(shown) <= MANY else 5.5)


class Table:
    """Tidy table, indexed by its keys, in the order of the first rows."""

    def __init__(self, rows: Sequence[Row], focus: str = "D_A") -> None:
        self.arms = list(dict.fromkeys(row["arm"] for row in rows))
        self.places: dict[str, str] = {row["group"]: row["place"] for row in rows}
        self._values: dict[tuple[str, ...], float] = {}
        found: set[str] = set()
        for row in rows:
            at = (row["arm"], row["moment"], row["group"])
            first, second = row["first"], row["second"]
            found |= {first, second}
            self._values[*at, first, "norm"] = row["norm_first"]
            self._values[*at, second, "norm"] = row["norm_second"]
            if focus in (first, second):
                other = second if first == focus else first
                self._values[*at, other, "cosine"] = row["cosine"]
                self._values[*at, other, "half_width"] = spread(row)
                self._values[*at, other, "unclear"] = is_undetermined(row)
        self.sets = ordered(found)

    def value(self, arm: str, checkpoint: str, group: str, name: str, measure: str) -> float:
        """Return one number; nan if there is none."""
        return self._values.get((arm, checkpoint, group, name, measure), math.nan)

    def values(self, arm: str, checkpoint: str, name: str, measure: str) -> Floats:
        """Return one number per group; nan if there is none, or none for a logarithmic axis."""
        found = np.array(
            [self.value(arm, checkpoint, group, name, measure) for group in self.places]
        )
        return np.where(found > 0, found, np.nan) if measure == "norm" else found

    def interval(
        self, arm: str, checkpoint: str, name: str, measure: str
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return each group's interval (nan if none), and whether the value is determined."""
        if measure != "cosine":
            nothing = np.full(len(self.places), np.nan)
            return nothing, nothing, np.ones(len(self.places), dtype=np.bool_)
        y, half, unclear = (
            self.values(arm, checkpoint, name, key) for key in ("cosine", "half_width", "unclear")
        )
        return np.maximum(y - half, -1), np.minimum(y + half, 1), ~(unclear > 0)


def finish_cosines(panels: Sequence[Axes]) -> None:
    """Make the panels show 0 and enough around it for the noise."""
    for axes in panels:
        axes.axhline(0, color="0.6", lw=0.6, zorder=0)
    corner = panels[0]
    low, high = corner.get_ylim()
    corner.set_ylim(max(min(low, -_LEAST), -1.1), min(max(high, _LEAST), 1.1))
    corner.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    corner.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))


def _finish_norms(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.set_yscale("log")
    corner = panels[0]
    low, high = np.log10(corner.get_ylim())
    if high - low < _DECADES:
        corner.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
    corner.yaxis.set_major_locator(LogLocator(numticks=5))
    corner.yaxis.set_minor_locator(NullLocator())


FIGURE = TableFigure(
    "Cosines and norms of gradients by depth.",
    ("arm", "moment", "group", "first", "second", "cosine"),
    lambda rows: draw(rows, checkpoints_of(rows)),
    lambda rows, pair: draw(rows, checkpoints_of(rows), pair[0]),
)
