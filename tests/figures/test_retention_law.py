"""The figure of `geomix analyze curve`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from geomix.figures.labels import plain
from geomix.figures.retention_law import MEASURED, caption, draw


def rows(arm: str = "plain", against: str = "steps", law: str = "exponential") -> list[Any]:
    made = []
    for time in (1.0, 3.0, 10.0, 30.0):
        at = {"arm": arm, "against": against, "time": time, "n": 2}
        made.append({**at, "law": MEASURED, "retention": math.exp(-time / 9), "half_width": 0.05})
        if law:
            made.append(
                {**at, "law": law, "retention": math.exp(-time / 9), "half_width": math.nan}
            )
    return made


def test_a_panel_for_each_time_with_points_and_a_law() -> None:
    steps, tokens = draw([*rows(), *rows(against="tokens", law="")]).axes
    points, law = steps.lines[:2]
    for line in (points, law):
        np.testing.assert_array_equal(line.get_xdata(), [1, 3, 10, 30])
    assert points.get_linestyle() == "None"
    assert law.get_linestyle() != "None"
    assert tokens.get_title() == "no law"
    assert np.size(tokens.lines[1].get_xdata()) == 0
    assert [axes.get_xscale() for axes in (steps, tokens)] == ["log", "log"]


@pytest.mark.parametrize("name", ["$x_{", "a" * 200, "two\nlines"])
def test_any_name_of_an_arm(name: str) -> None:
    (legend,) = draw(rows(name)).legends
    assert legend.texts[0].get_text() == plain(name)


def test_without_retention_the_panel_says_so() -> None:
    empty = [{**row, "retention": math.nan} for row in rows(law="")]
    (axes,) = draw(empty).axes
    assert [text.get_text() for text in axes.texts] == ["no retention"]


def test_the_caption_names_laws_only_where_there_are_some() -> None:
    assert "best law" in caption(rows())
    assert "best law" not in caption(rows(law=""))
