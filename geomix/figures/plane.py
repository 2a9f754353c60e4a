"""Figure: the gradients as arrows in the plane of D_A's and D_B's (the paper's figure 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Arc
from scipy.optimize import isotonic_regression

from geomix.figures.labels import (
    UPDATE,
    WHOLE,
    Row,
    angle,
    checkpoint_symbol,
    direction_symbol,
    half_width,
    is_undetermined,
    mixed_in,
    of_seeds,
    parted,
    plain,
    unlike,
)
from geomix.figures.style import COLOURS, COLUMN, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure, checkpoints_of
from geomix.measures.plane import Plane, in_plane

PAIR = ("D_A", "D_B")
"""Directions that span the plane."""

_GRADIENTS = 3
"""Most norms that fit below the arrows without more room."""

_FEW = 3
"""Most adjacent panels that fit in one column of a page."""

_REACH = 1.62
"""Half the side of a panel, in arrow lengths."""

_TIP = 1.36
"""Distance of an arrow's name from the origin."""

_TIE = 0.08
"""Length of the line from an arrow's tip to its name."""

_HEAD, _LINE = 0.62, 0.12
"""Height of legend and titles, and of a line of text under a panel, in inches."""

_FAINT = 0.4

_STRIP, _STEM = 0.72, 0.13
"""Height of the strip of norms below the arrows, and of each norm, in arrow lengths."""

_MOVED = 0.12
"""Angle (radians) beyond which a name is tied to its arrow by a line."""


def draw(
    rows: Sequence[Row],
    checkpoints: Sequence[str],
    directions: Sequence[str] | None = None,
    group: str = WHOLE,
) -> Figure:
    """Draw a panel per arm and checkpoint: the directions in the plane of the first two.

    Every arrow has unit length, along its direction's projection onto the plane; the thick part is
    the share that lies in the plane, stated at the tip. A zero direction has no arrow. Under a
    panel: the norms of the gradients as stems on one logarithmic axis for all panels, since the
    arrows do not show them; the angle between the first two, with its interval, and the norms as
    numbers (also the update's, which is in units of the parameters and has no stem).

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric.
        checkpoints: labels of the checkpoints to draw, in order.
        directions: the directions to draw, among those in the table; None takes D_A, D_B, all
            mixed-in sets, and the update.
        group: of parameters.
    """
    directions = (*PAIR, *mixed_in(rows), UPDATE) if directions is None else directions
    wanted = set(directions)
    rows = [
        row for row in rows if row["group"] == group and {row["first"], row["second"]} <= wanted
    ]
    unlike(rows, "arm", "moment", "first", "second")
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    grid = [[(arm, checkpoint) for arm in arms] for checkpoint in checkpoints]
    if len(arms) == 1:
        grid = [[cell for line in grid for cell in line]]
    width = COLUMN if len(grid[0]) <= _FEW else WIDTH
    with style():
        side = min((width - 0.3) / len(grid[0]), 2.0)
        strip = _strip_height(directions)
        tall = side * (1 + strip / (2 * _REACH))
        figure = new_figure(_HEAD + len(grid) * tall, width)
        panels = figure.subplots(len(grid), len(grid[0]), squeeze=False)
        cells = [_Cell(rows, arm, checkpoint, directions) for arm, checkpoint in chain(*grid)]
        decades = _decades([value for cell in cells for value in cell.gradients().values()])
        faint = [
            _panel(axes, cell, decades, strip)
            for axes, cell in zip(panels.flat, cells, strict=True)
        ]
        lines = [max(axes.get_xlabel().count("\n") + 1 for axes in line) for line in panels]
        figure.set_figheight(_HEAD + len(grid) * tall + _LINE * sum(lines))
        size = 8 if len(grid[0]) <= _FEW + 1 else 6.5
        for axes, (arm, checkpoint) in zip(panels[0], grid[0], strict=True):
            most = int(72 * side / (0.62 * size))
            title = plain(arm, most) if len(arms) > 1 else checkpoint_symbol(checkpoint)
            axes.set_title(title, size=size, pad=2)
        for line, names in zip(panels, grid, strict=True):
            if len(arms) > 1:
                symbol = checkpoint_symbol(names[0][1])
                line[0].set_ylabel(symbol, rotation=0, ha="right", va="center", size=9)
        _legend(figure, any(faint))
        below = 0.09 / figure.get_figheight()  # the layout underestimates the height of formulas
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(rect=(0, below, 1, 1 - below))
        settle(figure)
    return figure


def _strip_height(directions: Sequence[str]) -> float:
    """Return the height of the strip of norms, in arrow lengths."""
    gradients = sum(name != UPDATE for name in directions)
    return _STRIP + _STEM * max(0, gradients - _GRADIENTS)


def caption(rows: Sequence[Row], pair: tuple[str, str] = PAIR) -> str:
    """Describe the figure in sentences."""
    one, other = pair
    return (
        f"Gradients as arrows in the plane of {one}'s (to the right) and {other}'s. Rows are "
        "moments and columns arms; of one arm each panel is a moment. Arrows are lengthened to 1; "
        "the thick part and its percentage are the share that lies in the plane. Below are the "
        "norms on one logarithmic axis, then the angle between the first two with its interval; "
        f"what is dashed is undetermined. {of_seeds(rows)}"
    )


class _Cell:
    """One arm at one checkpoint.

    Args:
        rows: of one group.
        arm: its name.
        checkpoint: its label.
        directions: to draw; those in the table here are kept.
    """

    def __init__(
        self, rows: Sequence[Row], arm: str, checkpoint: str, directions: Sequence[str]
    ) -> None:
        here = [row for row in rows if (row["arm"], row["moment"]) == (arm, checkpoint)]
        self.pairs = {frozenset((row["first"], row["second"])): row for row in here}
        self.norms = {row["first"]: row["norm_first"] for row in here}
        self.norms |= {row["second"]: row["norm_second"] for row in here}
        self.names = [name for name in directions if name in self.norms]
        self.base = [name for name in directions[:2] if name in self.norms]
        self.colours = {name: _colour(i, name) for i, name in enumerate(directions)}

    def plane(self) -> Plane | None:
        """Return the plane; None if one of the first two directions is not in the table."""
        if len(self.base) < len(PAIR):
            return None
        cosine = np.full((len(self.names), len(self.names)), np.nan)
        for i, one in enumerate(self.names):
            cosine[i, i] = 1.0 if self.norms[one] > 0 else np.nan
            for j, other in enumerate(self.names):
                row = self.pairs.get(frozenset((one, other)))
                if i != j and row is not None:
                    cosine[i, j] = row["cosine"]
        return in_plane(cosine)

    def gradients(self) -> dict[str, float]:
        """Return the norms of the gradients that are not zero."""
        return {n: self.norms[n] for n in self.names if n != UPDATE and 0 < self.norms[n] < np.inf}

    def undetermined(self, name: str) -> bool:
        """Return whether a direction's position in the plane is undetermined."""
        pairs = [self.pairs.get(frozenset((name, base))) for base in self.base if base != name]
        return name != self.base[0] and any(
            row is not None and is_undetermined(row) for row in pairs
        )


def _colour(index: int, name: str) -> str:
    """Return a direction's colour: by its index, black for the update, grey for further ones."""
    if name == UPDATE:
        return COLOURS[-1]
    return COLOURS[index] if index < len(COLOURS) - 1 else "0.3"


def _panel(axes: Axes, cell: _Cell, decades: tuple[int, int], strip: float) -> bool:
    """Draw a panel; return whether anything in it is undetermined."""
    bottom = -_REACH - strip
    axes.set(xlim=(-_REACH, _REACH), ylim=(bottom, _REACH), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    plane = cell.plane()
    if plane is None:
        axes.text(0, 0, "not recorded", ha="center", va="center", color="0.4", size=6.5)
        return False
    around = np.linspace(0, 2 * np.pi, 121)
    axes.plot(np.cos(around), np.sin(around), color="0.85", lw=0.5, zorder=0)
    shown = [i for i in range(len(cell.names)) if plane.shares[i] > 0]
    towards = {i: math.atan2(plane.coordinates[i, 1], plane.coordinates[i, 0]) for i in shown}
    weights = [3.0 if cell.names[i] in cell.base else 1.0 for i in shown]
    named = dict(zip(shown, _apart([towards[i] for i in shown], weights), strict=True))
    for i in shown:
        name, share = cell.names[i], float(plane.shares[i])
        faint = cell.undetermined(name)
        colour = cell.colours[name]
        _arrow(axes, name, towards[i], share, faint, colour)
        text = direction_symbol(name) + ("" if name in cell.base else f"\n{100 * share:.0f} %")
        x, y = _TIP * math.cos(named[i]), _TIP * math.sin(named[i])
        look: dict[str, Any] = {"ha": "center", "va": "center", "size": 6.5, "linespacing": 0.95}
        axes.text(x, y, text, color=colour, gid=f"name {name}", **look)
        if abs(math.remainder(named[i] - towards[i], 2 * math.pi)) > _MOVED:
            # Around the circle, short of all names, so that it crosses none.
            turn = math.remainder(named[i] - towards[i], 2 * math.pi)
            arc = towards[i] + turn * np.linspace(0, 0.75, 12)
            out = 1 + _TIE * np.linspace(0, 1, 12)
            axes.plot(out * np.cos(arc), out * np.sin(arc), color=colour, lw=0.4, gid=f"tie {name}")
    unclear = [name for name in cell.names[1:] if cell.undetermined(name)]
    if 1 in towards:
        dashed = "--" if cell.base[1] in unclear else "-"
        swept = math.degrees(towards[1])
        axes.add_patch(Arc((0, 0), 0.56, 0.56, theta1=0, theta2=swept, lw=0.7, ls=dashed, ec="0.3"))
    _strip(axes, cell, decades)
    axes.set_xlabel("\n".join(_caption(cell, plane)), size=6.5, linespacing=1.3, labelpad=1)
    return bool(unclear)


def _decades(norms: Sequence[float]) -> tuple[int, int]:
    """Return powers of ten that enclose all norms."""
    logs = [math.log10(norm) for norm in norms] or [0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return (low, high) if high > low else (low - 1, low + 1)


def _strip(axes: Axes, cell: _Cell, decades: tuple[int, int]) -> None:
    """Draw norms as stems along a logarithmic axis below the arrows."""
    left, right, top = -1.2, 1.2, -_REACH + 0.1
    low, high = decades
    norms = cell.gradients()
    floor = top - _STEM * max(_GRADIENTS, sum(name != UPDATE for name in cell.colours))
    ticks = [left + (right - left) * k / (high - low) for k in range(high - low + 1)]
    axes.plot([left, right], [floor, floor], color="0.6", lw=0.5, gid="scale")
    axes.vlines(ticks, floor - 0.05, floor, color="0.6", lw=0.5)
    for x, power in ((left, low), (right, high)):
        look: dict[str, Any] = {"ha": "center", "va": "top", "size": 5.5, "color": "0.4"}
        axes.text(x, floor - 0.09, rf"$10^{{{power}}}$", **look)
    for row, (name, norm) in enumerate(norms.items()):
        y = top - _STEM * row
        x = left + (right - left) * (math.log10(norm) - low) / (high - low)
        look = {"color": cell.colours[name], "marker": "o", "ms": 2.2, "lw": 0.8}
        axes.plot([left, x], [y, y], markevery=[1], gid=f"norm {name}", **look)


def _arrow(axes: Axes, name: str, towards: float, share: float, faint: bool, colour: str) -> None:
    look: dict[str, Any] = {"color": colour, "alpha": _FAINT if faint else 1.0}
    tip = math.cos(towards), math.sin(towards)
    thin = {"arrowstyle": "-|>", "lw": 0.7, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    thin |= {"ls": "--" if faint else "-"}
    axes.annotate("", tip, (0, 0), arrowprops={**thin, **look}, gid=f"arrow {name}")
    inside = min(share, 0.93)  # the head of a whole arrow stays pointed
    ends = [0, inside * tip[0]], [0, inside * tip[1]]
    axes.plot(*ends, lw=1.9, solid_capstyle="butt", gid=f"share {name}", **look)


def _apart(towards: Sequence[float], weights: Sequence[float], gap: float = 0.72) -> list[float]:
    """Return angles in radians, in the order given around the circle and at least `gap` apart.

    Those of a larger weight stay nearer to their original position.
    """
    if not towards:
        return []
    turns = np.array(towards) % (2 * np.pi)
    order = np.argsort(turns, kind="stable")
    between = np.diff(turns[order], append=turns[order[0]] + 2 * np.pi)
    start = (int(np.argmax(between)) + 1) % len(order)  # the circle is cut at the widest gap
    order = np.roll(order, -start)
    along = turns[order] + 2 * np.pi * (turns[order] < turns[order[0]])
    steps = gap * np.arange(len(order))
    spread = isotonic_regression(along - steps, weights=np.array(weights)[order]).x + steps
    found = np.empty(len(order))
    found[order] = spread
    return [float(value) for value in found]


def _caption(cell: _Cell, plane: Plane) -> list[str]:
    row = cell.pairs[frozenset(cell.base)]
    cosine, half = row["cosine"], half_width(row)
    zero = [direction_symbol(name) for name in cell.base if cell.norms[name] == 0]
    if math.isnan(cosine):
        lines = [f"no angle: {' = '.join([*zero, '0']) if zero else 'not defined'}"]
    else:
        lines = [f"angle {angle(cosine):.0f}°"]
        if not math.isnan(half):
            lines[0] += f" ({angle(cosine + half):.0f}–{angle(cosine - half):.0f})"
        if plane.dimensions == 1:
            lines.append("one line, no plane")
        if is_undetermined(row):
            lines.append("undetermined")
    symbols = [direction_symbol(name).replace("$-", "$") for name in cell.names]
    sizes = [
        f"|{symbol}| {_number(cell.norms[name])}"
        for symbol, name in zip(symbols, cell.names, strict=True)
    ]
    if any(parted(name)[1] for name in cell.names):
        return lines + sizes
    return lines + ["  ".join(sizes[i : i + 2]) for i in range(0, len(sizes), 2)]


def _number(value: float) -> str:
    """Format with two digits, as mathtext for a power of ten, which every font has."""
    text = f"{value:.2g}"
    mantissa, e, power = text.partition("e")
    return rf"${mantissa}\cdot10^{{{int(power)}}}$" if e else text


def _legend(figure: Figure, unclear: bool) -> None:
    handles = [
        Line2D([], [], color="0.3", lw=1.9),
        Line2D([], [], color="0.3", lw=0.7),
        Line2D([0, 1], [0, 0], color="0.3", lw=0.8, marker="o", ms=2.2, markevery=[1]),
    ]
    labels = ["part in the plane", "lengthened to 1", "norm (log)"]
    if unclear:
        handles.append(Line2D([], [], color="0.3", lw=1.2, ls="--", alpha=_FAINT))
        labels.append("undetermined")
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels) if len(labels) <= _FEW else 2,
        frameon=False,
        fontsize=6.5,
        handlelength=2,
        columnspacing=1.2,
    )


FIGURE = TableFigure(
    "Directions in the plane of g_A and g_B.",
    ("arm", "moment", "group", "first", "second", "cosine"),
    lambda rows: draw(rows, checkpoints_of(rows)),
    lambda rows, pair: draw(rows, checkpoints_of(rows), (*pair, *mixed_in(rows), UPDATE)),
)
