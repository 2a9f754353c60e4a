"""Retention along training: the lines are the tables' numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from geomix.figures.retention import draw
from geomix.figures.stage_panels import begun
from geomix.figures.style import arm_look

Check = Callable[..., None]
STEPS = {0: (0, 10, 20, 30, 40), 1: (10, 20, 30)}


def table(arms: int = 2, score: str = "exact_match", seeds: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "arm": f"arm-{arm}",
            "stage": stage,
            "stage_name": ("kvr", "triples")[stage],
            "step": step,
            "set": name,
            "examples": 100,
            score: float(rng.uniform(5, 95)),
            "half_width": 3.0 if seeds > 1 else float("nan"),
            "n": seeds,
        }
        for arm in range(arms)
        for name in ("D_A", "D_B")
        for stage, steps in STEPS.items()
        for step in steps
    ]


def drawn(axes: Axes, arm: int, dashes: bool = True) -> dict[int, float]:
    """Points of an arm on its line, or those beside it."""
    found: dict[int, float] = {}
    for line in axes.lines:
        if line.get_color() == arm_look(arm)[0] and (line.get_linestyle() != "None") == dashes:
            found |= {round(x): y for x, y in np.asarray(line.get_xydata()).tolist()}
    return found


@pytest.mark.parametrize("score", ["exact_match", "loss"])
def test_every_line_is_the_tables(score: str) -> None:
    rows = table(score=score)
    last = {(r["arm"], r["set"]): r[score] for r in rows if (r["stage"], r["step"]) == (0, 40)}
    panels = np.array(draw(rows, score).axes).reshape(2, 2)
    assert [axes.get_title() for axes in panels[0]] == ["stage 1: kvr", "stage 2: triples"]
    for line, name in zip(panels, ("D_A", "D_B"), strict=True):
        for stage, axes in enumerate(line):
            for arm in range(2):
                expected = {
                    row["step"]: row[score]
                    for row in rows
                    if (row["arm"], row["set"], row["stage"]) == (f"arm-{arm}", name, stage)
                }
                if stage:  # θ_A, where the stage before ended
                    expected[0] = last[f"arm-{arm}", name]
                assert drawn(axes, arm) == pytest.approx(expected)


def test_a_logarithmic_axis_begins_with_each_stage() -> None:
    first, second = draw(table(1), log=True).axes[:2]
    for axes, ticks in ((first, [0, 1, 10]), (second, [0, 1, 10])):
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown == ticks
        assert low < 0 == min(drawn(axes, 0))
        assert axes.get_xscale() == "symlog"


@pytest.mark.parametrize(("most", "top"), [(8.0, 10), (33.0, 40), (49.0, 50), (51.0, 100)])
def test_small_scores_fill_the_axes_of_all_sets(most: float, top: float) -> None:
    rows = [row | {"exact_match": row["exact_match"] / 95 * (most - 3)} for row in table(1)]
    rows[0]["exact_match"] = most - 3  # the interval reaches 3 further
    for axes in draw(rows).axes:
        assert list(axes.get_yticks()) == [0, top / 2, top]
        assert axes.get_ylim()[0] < 0 < top < axes.get_ylim()[1] < 1.1 * top


def test_losses_of_both_stages_share_an_axis_and_sets_are_symbols() -> None:
    first, second, third, _ = draw(table(score="loss"), "loss").axes
    assert first.get_ylim() == second.get_ylim()
    assert [axes.get_ylabel() for axes in (first, third)] == [
        "$D_{\\mathrm{A}}$\nloss (nats)",
        "$D_{\\mathrm{B}}$\nloss (nats)",
    ]


def test_two_points_alone_are_joined_by_dots() -> None:
    rows = [r for r in table(1) if r["set"] == "D_A" or r["stage"] or r["step"] in (0, 40)]
    found = [
        [line.get_linestyle() for line in axes.lines if len(np.asarray(line.get_xdata())) > 1]
        for axes in draw(rows).axes
    ]
    solid = arm_look(0)[2]
    assert [one == [solid] for one in found] == [True, True, False, True]
    assert drawn(draw(rows).axes[2], 0).keys() == {0, 40}


def test_starts_that_the_table_has_are_not_drawn_twice() -> None:
    rows = begun(table(1), table(1))
    assert len(rows) == len(table(1)) + 2
    assert {row["stage_name"] for row in rows if row["stage"] == 1} == {"triples"}
    assert begun(rows, rows) == rows


def test_no_line_joins_a_sample_with_the_whole_set() -> None:
    rows = table(1)
    for row in rows:
        if row["stage"] == 0 and row["step"] in (0, 40):
            row["examples"] = 2_000
    first = draw(rows).axes[0]
    assert set(drawn(first, 0)) == {10, 20, 30}
    assert set(drawn(first, 0, dashes=False)) == {0, 40}


def test_two_rows_for_one_point_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        draw(table() + table())


@pytest.mark.parametrize("arms", [1, 3, 12])
@pytest.mark.parametrize("log", [False, True])
def test_no_text_is_cut_off_or_overlaps(check_texts: Check, arms: int, log: bool) -> None:
    check_texts(draw(table(arms), log=log), 8)


def test_the_same_table_gives_the_same_bytes(check_files: Check, tmp_path: Path) -> None:
    check_files(lambda: draw(table()), table(), tmp_path)
