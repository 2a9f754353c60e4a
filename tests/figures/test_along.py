"""Angles along training beside retention: the lines are the tables' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from geomix.figures.over_training import OTHERS, Measure, draw
from geomix.figures.style import COLOURS

Check = Callable[..., None]
Rows = list[dict[str, Any]]
ARMS = (
    "none/none",
    "random/none",
    "control/none",
    "none/generic",
    "none/control",
    "random/generic",
)
STEPS = ((0, 1, 2, 4, 8, 16, 32, 300), (1, 2, 4, 8, 200))


def tables(arms: int = 2, stages: Sequence[int] = (0, 1), seed: int = 0) -> tuple[Rows, Rows]:
    """Angles of D_A with all other directions, and its retention, at the same steps."""
    rng = np.random.default_rng(seed)
    rows, retention = [], []
    for arm in ARMS[:arms]:
        for stage in stages:
            for step in STEPS[stage]:
                end = step == STEPS[stage][-1]
                moment = "θ_" + "0AB"[stage + end] + (f"+{step}" if step and not end else "")
                at = {"arm": arm, "stage": stage, "step": step, "moment": moment, "n": 10}
                for other in OTHERS:
                    where = {"group": "all", "first": "D_A", "second": other, "told": ""}
                    cosine, half = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.01, 0.3))
                    rows.append(at | where | {"cosine": cosine, "half_width": half})
                match = {"exact_match": float(rng.uniform(0, 100)), "half_width": 5.0}
                retention.append(at | {"set": "D_A"} | match)
    return rows, retention


def points(axes: Axes, arm: int) -> dict[int, float]:
    found: dict[int, float] = {}
    for line in axes.lines:
        if line.get_color() == COLOURS[arm]:
            where = np.asarray(line.get_xydata()).tolist()
            found |= {round(x): y for x, y in where if np.isfinite(y)}
    return found


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("measure", ["angle", "cosine"])
def test_every_line_is_the_tables(measure: Any, log: bool) -> None:
    rows, retention = tables()
    panels = np.array(draw(rows, retention, measure, log=log).axes).reshape(5, 2)
    assert [axes.get_title() for axes in panels[0]] == ["stage 1", "stage 2"]
    for stage in (0, 1):
        for index, arm in enumerate(ARMS[:2]):
            for axes, other in zip(panels[:, stage], OTHERS, strict=False):
                expected = {
                    shown_step(row, stage): math.degrees(math.acos(row["cosine"]))
                    if measure == "angle"
                    else row["cosine"]
                    for row in rows
                    if (row["arm"], row["second"]) == (arm, other) and in_stage(row, stage, other)
                }
                assert points(axes, index) == pytest.approx(expected)
            known = {
                shown_step(row, stage): row["exact_match"]
                for row in retention
                if row["arm"] == arm and in_stage(row, stage)
            }
            assert points(panels[4, stage], index) == pytest.approx(known)


def in_stage(row: dict[str, Any], stage: int, other: str = "") -> bool:
    """A stage shows its own rows and θ_A where it begins; the update's θ_A is the next stage's."""
    if row["moment"] == "θ_A":
        return stage == 1 or other != "update"
    return bool(row["stage"] == stage)


def shown_step(row: dict[str, Any], stage: int) -> int:
    return 0 if row["stage"] < stage else int(row["step"])


def test_bands_are_the_intervals() -> None:
    """An angle's interval has the arc cosines of the cosine's ends, and ends at 0° and 180°."""
    rows, retention = tables(1, stages=[1])
    for row in rows:
        row.update(cosine=0.9, half_width=0.2)
    figure = draw(rows, retention)

    def ends(axes: Axes) -> tuple[float, float]:
        (band,) = (c for c in axes.collections if isinstance(c, PolyCollection))
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        return float(heights.min()), float(heights.max())

    assert ends(figure.axes[0]) == pytest.approx((0, math.degrees(math.acos(0.7))))
    last = [row["exact_match"] for row in retention]
    assert ends(figure.axes[4]) == pytest.approx((max(min(last) - 5, 0), min(max(last) + 5, 100)))
    for row in [*rows, *retention]:
        row["half_width"] = float("nan")
    assert not any(axes.collections for axes in draw(rows, retention).axes)


def test_an_interval_as_wide_as_the_axis_is_left_out() -> None:
    rows, retention = tables(1, stages=[0])
    for row in rows:
        row["half_width"] = 1.5
    axes = draw(rows, retention, "cosine").axes[0]
    assert not axes.collections


def test_what_is_undetermined_is_open_and_faint() -> None:
    rows, retention = tables(1, stages=[0])
    for row in rows:
        if row["second"] == "D_B" and row["step"] >= 16:
            row["told"] = "undetermined"
    figure = draw(rows, retention, "cosine")

    def marks(axes: Axes, **where: Any) -> list[int]:
        return [
            round(x)
            for line in axes.lines
            if line.get_color() == COLOURS[0]
            and all(getattr(line, f"get_{key}")() == value for key, value in where.items())
            for x, y in np.asarray(line.get_xydata()).tolist()
            if np.isfinite(y)
        ]

    assert marks(figure.axes[0], markerfacecolor="white") == [16, 32, 300]
    assert marks(figure.axes[0], markerfacecolor=COLOURS[0], alpha=None) == [0, 1, 2, 4, 8]
    assert marks(figure.axes[0], alpha=0.35) == list(STEPS[0])
    assert marks(figure.axes[1], markerfacecolor="white") == []


def test_an_order_of_rows_or_of_a_pair_changes_nothing() -> None:
    rows, retention = tables()
    turned = [r | {"first": r["second"], "second": r["first"]} for r in rows][::-1]
    arms = sorted(turned, key=lambda row: ARMS.index(row["arm"]))
    for one, other in zip(draw(rows, retention).axes, draw(arms, retention).axes, strict=True):
        for arm in range(2):
            assert points(one, arm) == points(other, arm)


def test_only_what_is_there_is_drawn() -> None:
    rows, retention = tables(stages=[1])
    rows = [row for row in rows if row["second"] != "D_M"]
    figure = draw(rows, retention, others=("D_B", "D_M"))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        r"∠($g_{\mathrm{A}}$, $g_{\mathrm{B}}$)",
        "exact match\non $D_{\\mathrm{A}}$ (%)",
    ]
    assert figure.get_figwidth() < 4
    other = [row | {"group": "layer 1", "cosine": 0.0} for row in rows]
    for one, two in zip(
        figure.axes, draw(rows + other, retention, others=("D_B",)).axes, strict=True
    ):
        assert points(one, 0) == points(two, 0)


def test_stages_have_their_names_and_an_empty_panel_says_so() -> None:
    rows, retention = tables(1)
    retention = [row | {"stage_name": ("facts", "")[row["stage"]]} for row in retention]
    rows = [r for r in rows if r["stage"] or r["second"] != "D_M"]
    panels = np.array(draw(rows, retention, log=True).axes).reshape(5, 2)
    assert [axes.get_title() for axes in panels[0]] == ["stage 1: facts", "stage 2"]
    said = {at: [t.get_text() for t in axes.texts] for at, axes in np.ndenumerate(panels)}
    assert {at: texts for at, texts in said.items() if texts} == {(1, 0): ["not recorded"]}


def test_two_metrics_at_a_time_are_refused() -> None:
    rows, retention = tables()
    with pytest.raises(ValueError, match="one metric at a time"):
        draw([*rows, *rows], retention)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("arms", "stages", "others"),
    [(2, (0, 1), OTHERS), (6, (0, 1), OTHERS), (6, (1,), ("D_B",)), (3, (0,), OTHERS)],
)
def test_no_text_is_cut_off_or_overlaps(
    check_texts: Check, arms: int, stages: Sequence[int], others: Sequence[str], log: bool
) -> None:
    """Each measure with each axis of steps for the fewest arms; for the others, one of them."""
    rows, retention = tables(arms, stages)
    both: tuple[Measure, ...] = ("angle", "cosine")
    for measure in both if arms == 2 else (both[(len(stages) + log) % 2],):
        check_texts(draw(rows, retention, measure, log=log, others=others), 10)


def test_the_same_table_gives_the_same_bytes(check_files: Check, tmp_path: Path) -> None:
    rows, retention = tables()
    check_files(lambda: draw(rows, retention, log=True, others=("D_B",)), rows, tmp_path)
