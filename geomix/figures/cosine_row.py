"""Figure: one pair's cosine by depth as a single row, for a column of a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomix.figures.cosine_by_depth import Depth, Table, finish_cosines
from geomix.figures.labels import (
    MARKS,
    NULLS,
    WHOLE,
    Row,
    checkpoint_symbol,
    direction_symbol,
    of_seeds,
    plain,
    unlike,
    why_blank,
)
from geomix.figures.lines import marks_of, name_arms, write_blank
from geomix.figures.style import COLUMN, new_figure, settle, style
from geomix.figures.table import TableFigure, checkpoints_of

_HEIGHT = 1.15
"""Height of a panel with its title, in inches."""

_NAME = 10
"""Most characters of an arm's name in the margin."""

_SMALL: dict[str, Any] = {"size": 6.0, "linespacing": 1.15}
"""Text style of the norms and of their names, so that their lines align."""

_POINTS = 190.0
"""Total width of the panels, in points."""


def draw(
    rows: Sequence[Row], checkpoints: Sequence[str], pair: tuple[str, str] = ("D_A", "D_B")
) -> Figure:
    """Draw a panel per checkpoint: one set's cosine with another by layer, a line an arm.

    The grey line behind each arm's, with the same dashes, is the cosine with the held-out set, if
    the rows have it: the null. Below a panel are the norms of the first set's whole gradient in
    each arm, with the arms' names in the margin: if a norm is nearly zero, the cosine is hardly
    informative.

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric.
        checkpoints: labels of the checkpoints to draw; more than three do not fit.
        pair: the set in question, and the one that it is compared with, or `update`.
    """
    focus, other = pair
    pairs = ({focus, other}, {focus, NULLS[0]})
    rows = [row for row in rows if {row["first"], row["second"]} in pairs]
    rows = [row for row in rows if row["moment"] in checkpoints]
    unlike(rows, "arm", "moment", "group", "first", "second")
    table = Table(rows, focus)
    axis = Depth(table, _POINTS / len(checkpoints))
    with style():
        figure = new_figure(0.55 + _HEIGHT + axis.height + 0.1 + 0.1 * len(table.arms), COLUMN)
        panels = list(
            figure.subplots(1, len(checkpoints), sharex=True, sharey=True, squeeze=False)[0]
        )
        null = False
        for axes, checkpoint in zip(panels, checkpoints, strict=True):
            axes.margins(x=0.04)
            if not axis.draw(axes, checkpoint, other, "cosine"):
                write_blank(axes, why_blank(other, checkpoint))
            null |= other != NULLS[0] and axis.draw_null(axes, checkpoint)
            axis.name(axes)
            axes.set_title(checkpoint_symbol(checkpoint))
            axes.set_xlabel(_norms(table, checkpoint, focus), **_SMALL)
        finish_cosines(panels)
        one, two = direction_symbol(focus), direction_symbol(other)
        panels[0].set_ylabel(f"cos({one}, {two})")
        drawn = [row for row in rows if {row["first"], row["second"]} == {focus, other}]
        name_arms(figure, table.arms, marks_of(drawn, null=null))
        _name_norms(panels[0], table.arms)
        settle(figure)
    return figure


def caption(rows: Sequence[Row], pair: tuple[str, str] = ("D_A", "D_B")) -> str:
    """Describe the figure in sentences."""
    one, other = pair
    nulls = [row for row in rows if NULLS[0] in (row["first"], row["second"])]
    null = " Grey, in the arm's dashes, is the cosine with held-out examples, the null."
    return (
        f"Cosine of {one}'s gradient with {other}'s by depth, one panel a moment of training and "
        f"one line an arm.{null if nulls else ''} Below stands the norm of {one}'s gradient over "
        f"the whole model in each arm. {MARKS} {of_seeds(rows)}"
    )


def _norms(table: Table, checkpoint: str, focus: str) -> str:
    """Return the norm of a set's whole gradient in every arm, one a line."""
    found = [table.value(arm, checkpoint, WHOLE, focus, "norm") for arm in table.arms]
    lines = ["–" if math.isnan(norm) else f"{norm:.2g}" for norm in found]
    return "\n".join([f"|{direction_symbol(focus)}|", *lines])


def _name_norms(axes: Axes, arms: Sequence[str]) -> None:
    """Name the arms of the norms, to the left of the first panel's."""
    text = "\n".join(["", *(plain(arm, _NAME) for arm in arms)])
    beside: Any = ("axes fraction", axes.xaxis.label)
    axes.annotate(text, (-0.06, 0), xycoords=beside, ha="right", va="bottom", **_SMALL)


FIGURE = TableFigure(
    "One pair's cosine by depth, in a row for a column of a paper.",
    ("arm", "moment", "group", "first", "second", "cosine"),
    lambda rows: draw(rows, checkpoints_of(rows)[:3]),
    lambda rows, pair: draw(rows, checkpoints_of(rows)[:3], pair),
)
