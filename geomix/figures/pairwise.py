"""Figure: the cosine between the gradients of every two examples, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure

from geomix.figures.labels import checkpoint_symbol, plain, set_symbol
from geomix.figures.style import COLUMN, SIGNED, new_figure, settle, style
from geomix.figures.table import TableFigure
from geomix.measures.cosine import Floats

_LEAST = 0.05
"""Least half-range of the colours, so that noise is not magnified."""

_HEIGHT = 3.4
"""Height in inches: a square of the column's width, and the colour bar below it."""

_NAME = 8
"""Most characters of a set's name, next to as little as one example."""

Row = Mapping[str, Any]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one cell for every pair of examples, in the rows' order; lines separate the sets.

    Colours are symmetric about 0, reach to the largest cosine of two different examples and follow
    the signed root, as pairs within a set are often similar while those across sets hardly are. The
    diagonal, where each example meets itself, and undefined cosines are white.

    Args:
        rows: tidy, each pair once, the examples in order: set, example, other_set, other_example,
            cosine; an arm and a checkpoint, if present, form the title; the CSV has the same.
    """
    arm, checkpoint = (str(rows[0].get(key, "")) for key in ("arm", "moment"))
    sets, table = _matrix(rows)
    most = max(_LEAST, float(np.nanmax(np.abs(table), initial=0.0)))
    with style():
        figure = new_figure(_HEIGHT + 0.45, COLUMN)
        axes = figure.add_subplot()
        image = axes.imshow(
            np.ma.masked_invalid(table),
            cmap=SIGNED,
            norm=FuncNorm((_root, _square), vmin=-most, vmax=most),
            interpolation="none",
            aspect="equal",
        )
        for side in axes.spines.values():
            side.set_visible(True)
        _part(axes, sets)
        title = [plain(arm)] * bool(arm) + [f"at {checkpoint_symbol(checkpoint)}"] * bool(
            checkpoint
        )
        axes.set_title(" ".join(title), pad=4)
        axes.set_xlabel("one row and column an example", size=6.5)
        axes.set_ylabel("within a set: the most opposed first", size=6.5)
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.75, aspect=26, pad=0.02)
        bar.set_label("cosine of two examples' gradients\n(colours and ticks by its signed root)")
        bar.outline.set_linewidth(0.6)
        ends = [-most, -most / 4, 0.0, most / 4, most]
        bar.set_ticks(ends, labels=[_number(value) for value in ends])
        settle(figure)
    return figure


def caption(rows: Sequence[Row], pair: tuple[str, str] = ("D_A", "D_B")) -> str:
    """Describe the figure in sentences."""
    pairs = {(row["set"], row["example"]) for row in rows}
    one, other = pair
    return (
        "Cosine between the gradients of every two examples at one moment of one arm; lines part "
        f"the sets, with their numbers of examples above (n = {len(pairs)} in all). In each set "
        f"those come first whose gradients oppose the other set of the first pair most: {one}'s "
        f"against {other}, all others' against {one}. Colours go by the signed root of the cosine; "
        "the diagonal is left white."
    )


def _root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def _matrix(rows: Sequence[Row]) -> tuple[list[str], Floats]:
    """Return the set of each of the N examples, and `(N, N)`, nan on the diagonal."""
    names = list(dict.fromkeys((row["set"], row["example"]) for row in rows))
    at = {name: i for i, name in enumerate(names)}
    table = np.full((len(names), len(names)), np.nan)
    for row in rows:
        i, j = at[row["set"], row["example"]], at[row["other_set"], row["other_example"]]
        if i != j:
            table[i, j] = table[j, i] = row["cosine"]
    return [name for name, _ in names], table


def _part(axes: Axes, sets: Sequence[str]) -> None:
    """Draw lines between the sets, with names and counts at their middles."""
    names = list(dict.fromkeys(sets))
    edges = np.cumsum([0, *(sets.count(name) for name in names)])
    for edge in edges[1:-1]:
        for line in (axes.axhline, axes.axvline):
            line(float(edge) - 0.5, color="white", lw=1.6)
            line(float(edge) - 0.5, color="black", lw=0.6)
    middles = (edges[:-1] + edges[1:] - 1) / 2
    axes.set_xticks(middles, [f"{_short(n)}\n{sets.count(n)}" for n in names])
    axes.set_yticks(middles, [_short(name) for name in names])
    axes.tick_params(length=0, pad=2, labeltop=True, labelbottom=False)


def _short(name: str) -> str:
    return "held" if name == "held-out" else set_symbol(name, _NAME)


def _number(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value else "0"


FIGURE = TableFigure(
    "Cosines between the gradients of every two examples.",
    ("set", "example", "other_set", "other_example", "cosine"),
    draw,
)
