"""Figures: both ends of the spectra of Hessians, and their densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomix.figures.labels import Row, checkpoint_symbol, plain
from geomix.figures.style import WIDTH, arm_look, new_figure, settle, style
from geomix.figures.table import TableFigure

_ROW = 0.17
"""Height of a panel's line, in inches."""

_LEAST = 1e-3
"""Share of the largest value up to which the axis is linear: less counts as 0."""

_FEWEST = 1e-6
"""Share of the eigenvalues below which a bin is not drawn."""

_WIDEST = 4
"""Most panels in a row."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per matrix and checkpoint, with a line per arm, seed and block.

    The bar reaches from the smallest to the largest Ritz value, whose residuals are error bars; the
    diamond is κ along the displacement, the cross that of the permuted one. The axis is linear
    around 0 and logarithmic beyond.

    Args:
        rows: the main table of `geomix analyze curvature`.
    """
    panels = list(dict.fromkeys((row["matrix"], row["checkpoint"]) for row in rows))
    lines = list(dict.fromkeys((row["arm"], row["seed"], row["block"]) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    columns = min(len(panels), _WIDEST)
    height = -(-len(panels) // columns)
    with style():
        figure = new_figure(height * (0.75 + _ROW * len(lines)) + 0.25, WIDTH)
        grid = figure.subplots(height, columns, sharey=True, squeeze=False)
        for axes, (matrix, checkpoint) in zip(grid.flat, panels, strict=False):
            mine = [r for r in rows if (r["matrix"], r["checkpoint"]) == (matrix, checkpoint)]
            _panel(axes, mine, lines, arms)
            axes.set_title(f"{_formula(matrix)} at {checkpoint_symbol(checkpoint)}")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_yticks(range(len(lines)), _names(lines))
        grid[0, 0].set_ylim(len(lines) - 0.4, -0.6)
        marks = "◇ along the displacement, × the same shuffled"
        figure.supxlabel(f"curvature (nats per squared unit of weight); {marks}", size=7.5)
        settle(figure)
    return figure


def caption(rows: Sequence[Row]) -> str:
    """Return the caption."""
    refuted = sum(row["semidefinite"] == "refuted" for row in rows)
    return (
        "Both ends of the spectra of Hessians. A bar reaches from the smallest to the largest Ritz "
        "value, with their residuals; a diamond is the curvature along the displacement of the "
        "stage, a cross that along the same displacement with its values shuffled. The axis is "
        f"linear within a thousandth of the largest value. In {refuted} of {len(rows)} matrices a "
        "value is below 0 by more than residual and rounding: these are not positive semidefinite."
    )


def draw_density(rows: Sequence[Row]) -> Figure:
    """Draw the share of eigenvalues by size: one panel per matrix and checkpoint, a line per arm.

    Args:
        rows: the table `density` of `geomix analyze curvature`.
    """
    panels = list(dict.fromkeys((row["matrix"], row["checkpoint"]) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    columns = min(len(panels), _WIDEST)
    height = -(-len(panels) // columns)
    with style():
        figure = new_figure(1.7 * height + 0.4, WIDTH)
        grid = figure.subplots(height, columns, sharey=True, squeeze=False)
        for axes, (matrix, checkpoint) in zip(grid.flat, panels, strict=False):
            mine = [r for r in rows if (r["matrix"], r["checkpoint"]) == (matrix, checkpoint)]
            for arm, seed in dict.fromkeys((r["arm"], r["seed"]) for r in mine):
                some = [r for r in mine if (r["arm"], r["seed"]) == (arm, seed)]
                _steps(axes, some, arms.index(arm))
            axes.set_title(f"{_formula(matrix)} at {checkpoint_symbol(checkpoint)}")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("share of eigenvalues")
        if len(arms) > 1:
            grid[0, 0].legend([plain(arm, 14) for arm in arms], frameon=False, fontsize=6.5)
        figure.supxlabel("eigenvalue", size=7.5)
        settle(figure)
    return figure


def density_caption(rows: Sequence[Row]) -> str:
    """Return the caption of the densities."""
    return (
        "The share of a Hessian's eigenvalues in intervals of their size, by stochastic Lanczos "
        f"quadrature: means over {rows[0]['starts']} random starts with Student's 95 % interval. "
        "The middle interval reaches from minus to plus a thousandth of the largest absolute "
        "value, which counts as 0. Shares below one in a million are not drawn."
    )


def _panel(
    axes: Axes, rows: Sequence[Row], lines: Sequence[tuple[Any, ...]], arms: Sequence[str]
) -> None:
    largest = max(max(abs(r["smallest"]), abs(r["largest"])) for r in rows) or 1.0
    axes.set_xscale("symlog", linthresh=_LEAST * largest, linscale=0.4)
    axes.axvline(0, color="0.6", lw=0.5, zorder=0)
    for row in rows:
        y = lines.index((row["arm"], row["seed"], row["block"]))
        colour, _, _ = arm_look(arms.index(row["arm"]))
        low, high = row["smallest"], row["largest"]
        axes.plot([low, high], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        bars: Any = {"ls": "none", "marker": "|", "ms": 5, "color": colour, "lw": 0.8}
        spread = [row["smallest_residual"], row["largest_residual"]]
        axes.errorbar([low, high], [y, y], xerr=spread, capsize=1.5, elinewidth=0.7, **bars)
        for key, marker in (("along", "D"), ("along_permuted", "x")):
            if not math.isnan(row[key]):
                axes.plot([row[key]], [y], marker=marker, ms=3.2, mec="black", mfc="white", mew=0.7)
    reach = 10 ** math.ceil(math.log10(largest))
    ticks = [-reach, -reach / 100, 0, reach / 100, reach]
    axes.set_xticks(ticks, [_power(t) for t in ticks])
    axes.minorticks_off()


def _steps(axes: Axes, rows: Sequence[Row], index: int) -> None:
    colour, marker, _ = arm_look(index)
    largest = max(max(abs(r["low"]), abs(r["high"])) for r in rows) or 1.0
    middles = [(r["low"] + r["high"]) / 2 for r in rows]
    shares = np.array([r["share"] if r["share"] > _FEWEST else math.nan for r in rows])
    halves = np.minimum([r["half_width"] for r in rows], shares * 0.999)
    axes.set_xscale("symlog", linthresh=_LEAST * largest, linscale=0.4)
    axes.set_yscale("log")
    axes.set_ylim(_FEWEST / 3, 2)
    look: Any = {"color": colour, "marker": marker, "ms": 2.6, "ls": "none"}
    axes.errorbar(middles, shares, halves, elinewidth=0.6, **look)
    reach = 10 ** math.ceil(math.log10(largest))
    ticks = [-reach, -reach / 100, 0, reach / 100, reach]
    axes.set_xticks(ticks, [_power(t) for t in ticks])
    axes.minorticks_off()


def _power(value: float) -> str:
    """Format a power of ten: `−10²`, `0`, `1`."""
    if value == 0:
        return "0"
    power = round(math.log10(abs(value)))
    sign = "-" if value < 0 else ""
    return rf"${sign}10^{{{power}}}$"


def _names(lines: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the labels that distinguish the lines: arm, seed, block."""
    kinds = [len({line[k] for line in lines}) > 1 for k in range(3)]
    found = []
    for arm, seed, block in lines:
        parts = [plain(str(arm), 12)] * (kinds[0] or not any(kinds))
        parts += [f"seed {seed}"] * kinds[1] + [plain(str(block), 18)] * kinds[2]
        found.append(", ".join(parts))
    return found


def _formula(matrix: str) -> str:
    """Return a matrix's symbol: `H_A` with a subscript, or a symmetrised product as a formula."""
    if not all(part.isalnum() or part in "_½()+ " for part in matrix):
        return plain(matrix)
    parts = matrix.replace("½", r"\frac{1}{2}").split(" ")
    written = [_subscripted(part) for part in parts]
    return "$" + r"\,".join(written) + "$"


def _subscripted(part: str) -> str:
    body = part.strip("()")
    base, _, index = body.rpartition("_")
    named = rf"{base}_{{\mathrm{{{index}}}}}" if base else body
    return part.replace(body, named) if body else part


FIGURE = TableFigure(
    "Both ends of the spectra of Hessians, and the curvature along a displacement.",
    (
        "arm",
        "seed",
        "checkpoint",
        "matrix",
        "block",
        "smallest",
        "largest",
        "smallest_residual",
        "largest_residual",
        "along",
        "along_permuted",
        "semidefinite",
    ),
    draw,
)
