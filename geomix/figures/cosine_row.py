"""Figure: one pair's cosine by depth as a single row, for a column of a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from geomix.figures.cosine_by_depth import Depth, Table, finish_cosines
from geomix.figures.labels import WHOLE, Row, direction_symbol, moment_symbol, unlike
from geomix.figures.lines import name_arms
from geomix.figures.style import COLUMN, new_figure, settle, style

_HEIGHT = 1.15
"""Inches of a panel, its title included."""

_BESIDE = 2
"""Norms in a line."""

_POINTS = 190.0
"""Width that the panels have together, in points."""


def draw(rows: Sequence[Row], moments: Sequence[str], other: str = "D_B") -> Figure:
    """A panel a moment: the cosine of D_A's gradient with another by layer, a line an arm.

    Under a panel stands the norm of D_A's whole gradient, arm by arm in the order of the legend:
    where it is nearly zero the cosine says little.

    Args:
        rows: the tidy table of `geomix analyze grad-angle`, of one metric.
        moments: labels of those to draw, at most three or their names have no room.
        other: set whose gradient is compared with D_A's, or `update`.
    """
    rows = [row for row in rows if {row["first"], row["second"]} == {"D_A", other}]
    unlike(rows, "arm", "moment", "group")
    table = Table(rows)
    axis = Depth(table, _POINTS / len(moments))
    with style():
        figure = new_figure(
            0.35 + _HEIGHT + axis.height + 0.1 + 0.1 * math.ceil(len(table.arms) / _BESIDE), COLUMN
        )
        panels = list(figure.subplots(1, len(moments), sharex=True, sharey=True, squeeze=False)[0])
        for axes, moment in zip(panels, moments, strict=True):
            axes.margins(x=0.04)
            axis.draw(axes, moment, other, "cosine")
            axis.name(axes)
            axes.set_title(moment_symbol(moment))
            axes.set_xlabel(_norms(table, moment), size=6.0, linespacing=1.1)
        finish_cosines(panels)
        one, two = direction_symbol("D_A"), direction_symbol(other)
        panels[0].set_ylabel(f"cos({one}, {two})")
        name_arms(figure, table.arms)
        settle(figure)
    return figure


def _norms(table: Table, moment: str) -> str:
    """The norm of D_A's whole gradient in every arm, a few in a line."""
    found = [f"{table.value(arm, moment, WHOLE, 'D_A', 'norm'):.2g}" for arm in table.arms]
    lines = [" / ".join(found[i : i + _BESIDE]) for i in range(0, len(found), _BESIDE)]
    return "\n".join([f"|{direction_symbol('D_A')}|", *lines])
