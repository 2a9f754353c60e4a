"""Figure: recall and bits of facts that are not retrained, over steps on a few others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from geomix.figures.labels import Row, of_seeds, plain, set_symbol
from geomix.figures.lines import NULL_GREY, limit_to_values
from geomix.figures.style import COLOURS, MARKERS, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure

BASE = "θ_0"
"""Kind of cues of the course that begins with the base model."""

UNTAUGHT = (BASE, "another")
"""Kinds of courses that begin with a model which never learnt the set."""

_ACROSS = 3

_LABELS = {"recall": "lost facts\nright again (%)", "bits": "bits of\nlost facts"}

_RATES: tuple[Any, ...] = ("-", (0, (3, 1.5)))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw two panels an arm, recall and bits, over the steps; a line for each kind of cues.

    The set's own cues are black, their nulls coloured; the second rate is dashed.

    Args:
        rows: tidy: arm, cues, own (whether these are the set's own), rate, step, score (`recall` or
            `bits`), value, half_width (nan without an interval).
    """
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    across = min(len(arms), _ACROSS)
    down = len(scores) * -(-len(arms) // across)
    with style():
        figure = new_figure(0.75 + 1.35 * down, WIDTH * (0.4 + 0.6 * across / _ACROSS))
        grid = figure.subplots(down, across, squeeze=False, sharex=True)
        for axes in grid.ravel():
            axes.set_visible(False)
        for index, arm in enumerate(arms):
            for line, score in enumerate(scores):
                axes = grid[len(scores) * (index // across) + line][index % across]
                axes.set_visible(True)
                mine = [row for row in rows if (row["arm"], row["score"]) == (arm, score)]
                _panel(axes, mine, rows)
                if line == 0:
                    axes.set_title(plain(arm))
                if index % across == 0:
                    axes.set_ylabel(_LABELS.get(score, score))
                if line == len(scores) - 1:
                    axes.set_xlabel("steps on the cues")
                    axes.tick_params(labelbottom=True)
        _legend(figure, rows)
        settle(figure)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], everything: Sequence[Row]) -> None:
    rates = sorted({row["rate"] for row in everything}, reverse=True)
    for kind, (colour, marker) in _looks(everything).items():
        if _is_low(kind, rows):
            continue
        for index, rate in enumerate(rates):
            mine = [row for row in rows if (row["cues"], row["rate"]) == (kind, rate)]
            x, y, half = (
                np.array([row[key] for row in mine]) for key in ("step", "value", "half_width")
            )
            dashes = _RATES[index % len(_RATES)]
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 3, "lw": 0.9}
            axes.plot(x, y, ls=dashes, mfc="white" if index else colour, mew=0.6, **look)
            there = np.isfinite(half)
            axes.vlines(x[there], (y - half)[there], (y + half)[there], colour, lw=0.5, alpha=0.5)
    shown = [row for row in rows if not _is_low(row["cues"], [row])]
    value, half = (np.array([float(row[key]) for row in shown]) for key in ("value", "half_width"))
    limit_to_values(axes, value, half)
    steps = sorted({row["step"] for row in everything})
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))


def _is_low(kind: str, rows: Sequence[Row]) -> bool:
    """Return whether a kind's bits are far below all others: of a model that was never taught."""
    return kind in UNTAUGHT and any(row["score"] == "bits" for row in rows)


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each kind of cues: black for the set's own."""
    own = dict.fromkeys(row["cues"] for row in rows if _is_own(row))
    nulls = dict.fromkeys(row["cues"] for row in rows if not _is_own(row))
    colours = [colour for colour in COLOURS if colour != "#000000"]
    found = dict.fromkeys(own, ("black", MARKERS[0]))
    for i, kind in enumerate(nulls):
        colour = NULL_GREY if kind == "random" else colours[i % len(colours)]
        found[kind] = (colour, MARKERS[1 + i % (len(MARKERS) - 1)])
    return found


def _is_own(row: Row) -> bool:
    return str(row["own"]) == "True"


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    looks = _looks(rows)
    handles = [Line2D([], [], color=c, marker=m, ms=3, lw=0.9) for c, m in looks.values()]
    names = [f"cues: {set_symbol(kind)}" if kind in _own(rows) else _null(kind) for kind in looks]
    rates = sorted({row["rate"] for row in rows}, reverse=True)
    for index, rate in enumerate(rates):
        mark = {"marker": "o", "mfc": "white" if index else "0.3", "ms": 3, "mew": 0.6}
        dashes = _RATES[index % len(_RATES)]
        handles.append(Line2D([], [], color="0.3", ls=dashes, lw=0.9, **mark))  # type: ignore[arg-type]
        names.append(f"{rate:g} × the rate")
    across = 4 if figure.get_figwidth() > WIDTH * 0.7 else 3
    look: dict[str, Any] = {"frameon": False, "handlelength": 2.6, "columnspacing": 1.2}
    figure.legend(handles, names, loc="outside upper center", ncols=across, **look)


def _own(rows: Sequence[Row]) -> set[str]:
    return {row["cues"] for row in rows if _is_own(row)}


def _null(kind: str) -> str:
    """Return the legend's words for a null."""
    known = {"random": "random signs", BASE: r"from $\theta_0$", "another": "another set's model"}
    return known.get(kind, f"null: {set_symbol(kind)}")


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    return (
        "Facts that were lost and are not retrained, over steps on a few others: the share that is "
        "right again, and their mean bits. Black: the cues are lost facts of the same set. The "
        "rest are nulls, with as many cues: unseen facts, facts of the last set, random signs of "
        "equal length, the same cues from the base model or from one that learnt another set. "
        "The bits of the last two are far below and not drawn. Dashed: the smaller rate. Long "
        "intervals run out of the panel. "
        f"{of_seeds(rows)}"
    )


FIGURE = TableFigure(
    "Recall and bits of lost facts over steps on a few others, with the nulls.",
    ("arm", "cues", "own", "rate", "step", "score", "value", "half_width"),
    draw,
)
