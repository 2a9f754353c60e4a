"""The figure of `geomix analyze relearn`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from geomix.figures.labels import plain
from geomix.figures.relearn import FIGURE, caption, draw
from geomix.figures.style import save_figure
from geomix.figures.table import read_table

KINDS = ("D_A", "held-out", "D_B", "random", "θ_0", "another")
STEPS = (0, 1, 2, 4, 8, 16)


def rows(arms: tuple[str, ...] = ("plain",)) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "cues": kind, "rate": rate, "step": step, "score": score}
        | {"value": 10.0 * i + step, "half_width": math.nan, "n": 1, "own": kind == "D_A"}
        for arm in arms
        for i, kind in enumerate(KINDS)
        for rate in (1.0, 0.3)
        for score in ("recall", "bits")
        for step in STEPS
    ]


def lines(axes: Axes) -> int:
    return sum(np.size(line.get_xdata()) == len(STEPS) for line in axes.lines)


def test_two_panels_an_arm_and_a_line_for_each_kind_and_rate() -> None:
    recall, bits = (axes for axes in draw(rows()).axes if axes.get_visible())
    assert lines(recall) == 12
    assert lines(bits) == 8  # models that were never taught are not drawn
    own = recall.lines[0]
    np.testing.assert_array_equal(own.get_ydata(), STEPS)
    assert own.get_color() == "black"


@pytest.mark.parametrize("arms", [1, 3, 4])
def test_arms_stand_three_in_a_row(arms: int) -> None:
    names = tuple(f"arm {i}" for i in range(arms))
    figure = draw(rows(names))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert sorted(titles) == sorted(names)
    assert sum(axes.get_visible() for axes in figure.axes) == 2 * arms


def test_any_name_of_an_arm() -> None:
    (title,) = (a.get_title() for a in draw(rows(("$x_{",))).axes if a.get_title())
    assert title == plain("$x_{")


def test_its_csv_draws_it_again(tmp_path: Path) -> None:
    save_figure(draw(rows()), rows(), tmp_path, "relearn", caption(rows()))
    again = read_table(tmp_path / "relearn.csv", FIGURE.columns)
    first, second = draw(rows()).axes[0].lines, draw(again).axes[0].lines
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
        assert one.get_color() == other.get_color()


def test_a_long_interval_does_not_set_the_axis() -> None:
    wide = [{**row, "half_width": 1e4} for row in rows()]
    recall = draw(wide).axes[0]
    values = [row["value"] for row in rows() if row["score"] == "recall"]
    low, high = recall.get_ylim()
    assert -100 < low < min(values) < max(values) < high < 200
