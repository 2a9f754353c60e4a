"""The angles by layer in one row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.figures.cosine_row import draw
from geomix.figures.lines import NULL_GREY
from geomix.figures.style import COLOURS, COLUMN

Table = Callable[..., list[dict[str, Any]]]
Check = Callable[..., None]
GROUPS = ("all", "embedding+head (tied)", *(f"layer {i}" for i in range(4)), "final norm")
MOMENTS = ["θ_A", "θ_A+4", "θ_B"]


def test_lines_and_norms_are_the_tables(angle_table: Table) -> None:
    rows = angle_table(3, GROUPS)
    figure = draw(rows, MOMENTS)
    assert figure.get_figwidth() == COLUMN
    assert [axes.get_title() for axes in figure.axes] == [
        r"$\theta_{A}$",
        r"$\theta_{A}$+4",
        r"$\theta_{B}$",
    ]
    pair = {
        (row["arm"], row["moment"], row["group"]): row
        for row in rows
        if (row["first"], row["second"]) == ("D_A", "D_B")
    }
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for axes, moment in zip(figure.axes, MOMENTS, strict=True):
        for index, arm in enumerate(arms):
            line = next(
                line
                for line in axes.lines
                if line.get_color() == COLOURS[index] and line.get_linestyle() != "None"
            )
            expected = [pair[arm, moment, f"layer {i}"]["cosine"] for i in range(4)]
            assert np.asarray(line.get_ydata(), dtype=float) == pytest.approx(expected)
        norms = axes.get_xlabel().split("\n", 1)[1].replace("\n", " / ").split(" / ")
        expected = [pair[arm, moment, "all"]["norm_first"] for arm in arms]
        assert [float(text) for text in norms] == pytest.approx(expected, rel=0.05)


def test_the_held_out_null_is_grey_behind_each_arm_and_norms_are_named(angle_table: Table) -> None:
    rows = angle_table(2, GROUPS)
    figure = draw(rows, MOMENTS)
    for axes, moment in zip(figure.axes, MOMENTS, strict=True):
        grey = [line for line in axes.lines if line.get_gid() == "null"]
        assert {line.get_color() for line in grey} == {NULL_GREY}
        known = {
            round(row["cosine"], 9)
            for row in rows
            if (row["moment"], row["first"], row["second"]) == (moment, "D_A", "held-out")
        }
        found = {round(float(y), 9) for line in grey for y in np.asarray(line.get_ydata())}
        assert found == known
    (margin,) = (text for text in figure.axes[0].texts if "/" in text.get_text())
    assert margin.get_text().split("\n") == ["", "none/none", "rando…none"]
    label = figure.axes[0].xaxis.label.get_window_extent()
    box = margin.get_window_extent()
    assert box.x0 >= 0
    assert box.y0 == pytest.approx(label.y0, abs=1)


def test_another_pair_is_drawn_where_it_is_asked_for(angle_table: Table) -> None:
    figure = draw(angle_table(1, GROUPS), ["θ_A"], ("D_A", "update"))
    assert figure.axes[0].get_ylabel().endswith(r"$-\Delta\theta$)")


@pytest.mark.parametrize(("arms", "moments"), [(1, MOMENTS[:1]), (3, MOMENTS), (6, MOMENTS[:2])])
@pytest.mark.parametrize("layers", [4, 32])
def test_no_text_is_cut_off_or_overlaps(
    angle_table: Table, check_texts: Check, arms: int, moments: list[str], layers: int
) -> None:
    groups = ("all", "embedding", *(f"layer {i}" for i in range(layers)), "final norm", "head")
    check_texts(draw(angle_table(arms, groups), moments), 8)


def test_the_same_table_gives_the_same_bytes(
    angle_table: Table, check_files: Check, tmp_path: Path
) -> None:
    rows = angle_table(2, GROUPS)
    check_files(lambda: draw(rows, MOMENTS[:2]), rows, tmp_path)
