"""Figure: forgetting against KL on the new task, and against its rivals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from geomix.figures.labels import Row, plain
from geomix.figures.lines import name_arms, write_blank
from geomix.figures.style import WIDTH, arm_look, new_figure, settle, style
from geomix.figures.table import TableFigure

POINT = "point"

_MOST = 3


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per predictor: a marker per arm, seed and stage, and the fit as a line.

    Args:
        rows: tidy: predictor, arm, kind (`point` or `fit`), x, nats (forgotten an answer), r2 (out
            of sample, of the predictor; nan without a fit).
    """
    predictors = list(dict.fromkeys(row["predictor"] for row in rows))[:_MOST]
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["kind"] == POINT))
    with style():
        figure = new_figure(2.4, WIDTH * (0.35 + 0.65 * len(predictors) / _MOST))
        panels = figure.subplots(1, max(1, len(predictors)), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, predictors, strict=False):
            _panel(axes, name, [row for row in rows if row["predictor"] == name], arms)
        if not arms:
            write_blank(panels[0], "no points")
        panels[0].set_ylabel("forgotten [nats an answer]")
        name_arms(figure, arms or ["–"])
        settle(figure)
    return figure


def _panel(axes: Axes, name: str, rows: Sequence[Row], arms: Sequence[str]) -> None:
    """Draw one predictor's points, arm by arm, and its fit."""
    for index, arm in enumerate(arms):
        colour, marker, _ = arm_look(index)
        mine = [row for row in rows if (row["arm"], row["kind"]) == (arm, POINT)]
        x, y = (np.array([row[key] for row in mine], dtype=np.float64) for key in ("x", "nats"))
        look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 3, "ls": "none"}
        axes.plot(x, y, mfc="white", mew=0.7, **look)
    fit = [row for row in rows if row["kind"] != POINT]
    axes.plot([row["x"] for row in fit], [row["nats"] for row in fit], color="black", lw=1.0)
    axes.axhline(0, color="0.8", lw=0.6, zorder=0)
    r2 = float(rows[0]["r2"])
    title = f"$R^2$ out of sample {r2:.2f}".replace("-", "−") if np.isfinite(r2) else "no fit"
    axes.set_title(title, color="black" if np.isfinite(r2) else "0.45")
    length = name == "‖Δθ‖"
    axes.set_xlabel(r"$\|\Delta\theta\|$" if length else f"{plain(name)} [nats a token]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def caption(rows: Sequence[Row]) -> str:
    """Describe the figure in sentences."""
    fits = any(row["kind"] != POINT for row in rows)
    text = (
        "Nats an answer that a later stage took from the set, against the KL divergence of the "
        "stage's end from its start on the new task and on unseen facts, and against the length "
        "of the displacement. A marker is an arm, a seed and a stage."
    )
    if not fits:
        return f"{text} There are too few points for a fit."
    return (
        f"{text} The line is the fit to all points, through the origin. R² is that of points whose "
        "arm or seed the fit has not seen; 0 is as good as the mean of the others."
    )


FIGURE = TableFigure(
    "Forgetting against KL on the new task and against the length of the displacement.",
    ("predictor", "arm", "kind", "x", "nats", "r2"),
    draw,
)
