"""The figure of `geomix analyze kl-law`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from geomix.figures.kl_law import FIGURE, caption, draw
from geomix.figures.labels import plain
from geomix.figures.style import save_figure
from geomix.figures.table import read_table

PREDICTORS = ("KL on D_B", "KL on held-out", "‖Δθ‖")


def rows(*, fit: bool = True, arm: str = "plain") -> list[dict[str, Any]]:
    found = []
    for name in PREDICTORS:
        for x in (0.5, 1.0, 2.0):
            at = {"predictor": name, "x": x, "nats": 3 * x, "r2": 0.9 if fit else math.nan}
            point = {**at, "kind": "point", "seed": 0, "stage": 2}
            found += [{**point, "arm": one} for one in (arm, "mixed")]
            if fit:
                found.append({**at, "arm": "", "kind": "fit", "seed": "", "stage": ""})
    return found


def test_a_panel_for_each_predictor_with_its_points_and_fit() -> None:
    panels = draw(rows()).axes
    assert [axes.get_title() for axes in panels] == ["$R^2$ out of sample 0.90"] * 3
    for axes in panels:
        plain_arm, mixed, fit = axes.lines[:3]
        for line in (plain_arm, mixed, fit):
            np.testing.assert_array_equal(line.get_ydata(), [1.5, 3, 6])
        assert plain_arm.get_linestyle() == "None" != fit.get_linestyle()
        assert plain_arm.get_color() != mixed.get_color()


def test_without_a_fit_it_says_so() -> None:
    assert {axes.get_title() for axes in draw(rows(fit=False)).axes} == {"no fit"}
    assert "too few points" in caption(rows(fit=False))
    assert "too few points" not in caption(rows())


def test_any_name_of_an_arm() -> None:
    (legend,) = draw(rows(arm="$x_{")).legends
    assert legend.get_texts()[0].get_text() == plain("$x_{")


def test_its_csv_draws_it_again(tmp_path: Path) -> None:
    save_figure(draw(rows()), rows(), tmp_path, "kl_law", caption(rows()))
    again = read_table(tmp_path / "kl_law.csv", FIGURE.columns)
    for one, other in zip(draw(rows()).axes, draw(again).axes, strict=True):
        assert one.get_title() == other.get_title()
        for line, same in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), same.get_xydata())
