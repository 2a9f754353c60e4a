"""Lines of several arms: what is undetermined is faint, and arms are named once a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from geomix.figures.style import arm_look
from geomix.measures.cosine import Floats

FAINT = 0.35
"""How opaque what is undetermined is."""

_DOTS: Any = (0, (0.8, 3.2))

MANY = 10
"""More points than this get fewer markers: one on each would hide the line."""


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
    """One arm's line with markers, faint and with open markers where it is undetermined.

    Args:
        axes: where to.
        arm: index of the arm, which gives colour, marker and dashes.
        x: `(n,)`.
        y: `(n,)`, nan where there is nothing.
        clear: `(n,)`, which points can be told.
        size: of the markers, in points.
        dotted: whether the line only leads from point to point, in place of the arm's dashes.
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
    alone = clear & ~beside[:-2] & ~beside[2:]  # no piece of a line shows these
    axes.plot(x, y, alpha=FAINT, color=colour, **dashes)
    told = np.flatnonzero(clear & (marked | alone)).tolist()
    axes.plot(x, np.where(clear, y, np.nan), markevery=told, **dashes, **look)
    unclear = ~clear & marked
    axes.plot(x[unclear], y[unclear], ls="none", mfc="white", mew=0.6, **look)


def draw_band(axes: Axes, arm: int, x: Floats, low: Floats, high: Floats) -> None:
    """An arm's interval between two lines, where it is known."""
    if np.isfinite(low).any():
        axes.fill_between(x, low, high, color=arm_look(arm)[0], alpha=0.18, lw=0, zorder=1)


def name_arms(figure: Figure, arms: Sequence[str]) -> None:
    """A legend above the figure, in as many rows as the names need."""
    looks = map(arm_look, range(len(arms)))
    handles = [Line2D([], [], color=c, ls=ls, marker=m, lw=0.9, markersize=3) for c, m, ls in looks]
    widest = 42 + 4.6 * max(len(arm) for arm in arms)  # points: handle, gaps and letters
    room = int(72 * figure.get_figwidth() // widest)
    figure.legend(
        handles,
        list(arms),
        loc="outside upper center",
        ncols=max(1, min(len(arms), room)),
        frameon=False,
        handlelength=3,
    )
