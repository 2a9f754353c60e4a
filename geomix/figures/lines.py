"""Lines of several arms: undetermined parts are faint, and each figure has one legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from geomix.figures.labels import Row, half_width, is_undetermined, plain
from geomix.figures.style import arm_look
from geomix.measures.cosine import Floats

FAINT = 0.35
"""Opacity of undetermined values."""

NULL_GREY = "0.55"
"""Colour of a cosine's null, drawn in the same panel."""

_DOTS: Any = (0, (0.8, 3.2))

MANY = 10
"""Number of points above which there are fewer markers: one on each would hide the line."""


def draw_line(
    axes: Axes,
    arm: int,
    x: Floats,
    y: Floats,
    clear: NDArray[np.bool_],
    size: float = 3.0,
    *,
    dotted: bool = False,
) -> None:
    """Draw one arm's line with markers, faint with open markers where it is undetermined.

    Args:
        axes: the panel.
        arm: index of the arm, which gives colour, marker and dashes.
        x: `(n,)`.
        y: `(n,)`, nan where there is nothing.
        clear: `(n,)`, which points are determined.
        size: of the markers, in points.
        dotted: whether to join the points by dots instead of the arm's dashes.
    """
    every = 1 + len(x) // MANY
    marked = np.arange(len(x)) % every == arm % every
    colour, marker, line = arm_look(arm)
    look: dict[str, Any] = {"color": colour, "marker": marker, "ms": size}
    dashes = {"ls": _DOTS, "lw": 0.7} if dotted else {"ls": line, "lw": 0.9}
    if clear.all():
        axes.plot(x, y, markevery=np.flatnonzero(marked).tolist(), **dashes, **look)
        return
    beside = np.concatenate([[False], clear, [False]])
    alone = clear & ~beside[:-2] & ~beside[2:]  # no segment of a line shows these
    axes.plot(x, y, alpha=FAINT, color=colour, **dashes)
    marked_at = np.flatnonzero(clear & (marked | alone)).tolist()
    axes.plot(x, np.where(clear, y, np.nan), markevery=marked_at, **dashes, **look)
    unclear = ~clear & marked
    axes.plot(x[unclear], y[unclear], ls="none", mfc="white", mew=0.6, **look)


def draw_band(axes: Axes, arm: int, x: Floats, low: Floats, high: Floats) -> None:
    """Draw an arm's interval as a band, or as a bar at isolated points."""
    there = np.isfinite(low)
    if not there.any():
        return
    colour = arm_look(arm)[0]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, zorder=1)
    beside = np.concatenate([[False], there, [False]])
    alone = there & ~beside[:-2] & ~beside[2:]
    if alone.any():
        axes.vlines(x[alone], low[alone], high[alone], colour, lw=0.6, alpha=FAINT, zorder=1)


def limit_to_values(axes: Axes, y: Floats, half: Floats, room: float = 0.5) -> None:
    """Set the vertical limits by values, not by intervals: a long one runs out of the panel.

    Args:
        axes: the panel.
        y: all values drawn in it, `(n,)`, nan where there is nothing.
        half: half widths of their intervals, nan without one, `(n,)`.
        room: share of the values' span that intervals may add at each end.
    """
    there = np.isfinite(y)
    if not there.any():
        return
    values, widths = y[there], np.nan_to_num(half[there])
    low, high = float(values.min()), float(values.max())
    span = (high - low) or abs(high) or 1.0
    ends = (
        max(float((values - widths).min()), low - room * span),
        min(float((values + widths).max()), high + room * span),
    )
    axes.set_ylim(ends[0] - 0.06 * span, ends[1] + 0.06 * span)


def write_blank(axes: Axes, text: str) -> None:
    """Write grey words into an empty panel."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "size": 6, "color": "0.45"}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, **look)


def marks_of(rows: Sequence[Row], *, null: bool = False) -> list[tuple[Any, str]]:
    """Return the markers used in a figure of these rows with their meanings, for `name_arms`.

    Args:
        rows: the drawn rows.
        null: whether grey lines show the held-out set beside another.
    """
    found: list[tuple[Any, str]] = []
    look: dict[str, Any] = {"color": "0.3", "marker": "o", "markersize": 3, "lw": 0.9}
    if null:
        found.append((Line2D([], [], color=NULL_GREY, lw=0.9), "grey: the held-out null"))
    if any(is_undetermined(row) for row in rows):
        found.append((Line2D([], [], **look), "determined"))
        faint = Line2D([], [], mfc="white", alpha=2 * FAINT, mew=0.6, **look)
        found.append((faint, "undetermined"))
    if any(half_width(row) >= 1 for row in rows):
        nothing = Line2D([], [], ls="none")
        found.append((nothing, "intervals over ±1: not drawn"))
    return found


def name_arms(figure: Figure, arms: Sequence[str], marks: Sequence[tuple[Any, str]] = ()) -> None:
    """Add a legend of arms above the figure, in as many rows as needed, and of markers below.

    Args:
        figure: the figure.
        arms: names.
        marks: handles and their meanings, the same for all arms.
    """
    if marks:
        letters = 28 + 3.2 * max(len(text) for _, text in marks)
        figure.legend(
            [handle for handle, _ in marks],
            [text for _, text in marks],
            loc="outside lower center",
            ncols=max(1, min(len(marks), int(72 * figure.get_figwidth() // letters))),
            frameon=False,
            fontsize=6,
            handlelength=2,
            borderaxespad=0.1,
        )
    arms = [plain(arm) for arm in arms]
    looks = map(arm_look, range(len(arms)))
    handles = [Line2D([], [], color=c, ls=ls, marker=m, lw=0.9, markersize=3) for c, m, ls in looks]
    widest = 42 + 4.6 * max(len(arm) for arm in arms)  # points: handle, gaps and letters
    room = int(72 * figure.get_figwidth() // widest)
    figure.legend(
        handles,
        arms,
        loc="outside upper center",
        ncols=max(1, min(len(arms), room)),
        frameon=False,
        handlelength=3,
    )
