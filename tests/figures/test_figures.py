"""Figures: what they draw, that it can be read, and that their files are reproducible."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from geomix.figures.cosine_by_depth import draw
from geomix.figures.style import COLOURS, LINES, MARKERS, save_figure
from geomix.figures.table import checkpoints_of

Check = Callable[..., None]

MOMENTS = ["θ_0", "θ_A", "θ_A+1", "θ_B"]
SETS = ("D_A", "D_B", "held-out", "D_M")


def groups(layers: int, tied: bool) -> list[str]:
    head = [] if tied else ["head"]
    first = "embedding+head (tied)" if tied else "embedding"
    return ["all", first, *(f"layer {i}" for i in range(layers)), "final norm", *head]


def table(
    arms: int = 2,
    layers: int = 4,
    tied: bool = True,
    sets: tuple[str, ...] = SETS,
    spread: float = 2.0,
) -> list[dict[str, Any]]:
    """A tidy table of random numbers; `spread` is that of the norms, in powers of e."""
    rng = np.random.default_rng(0)
    names = ("plain", "mixed", "control", "replay")[:arms]
    rows = []
    for arm, moment, group in itertools.product(names, MOMENTS, groups(layers, tied)):
        norms = dict(zip(sets, np.exp(spread * rng.normal(size=len(sets))), strict=True))
        for first, second in itertools.combinations(sets, 2):
            rows.append(
                {
                    "arm": arm,
                    "moment": moment,
                    "group": group,
                    "place": group,
                    "first": first,
                    "second": second,
                    "cosine": rng.uniform(-1, 1),
                    "norm_first": norms[first],
                    "norm_second": norms[second],
                }
            )
    return rows


def panels(figure: Figure, moments: int = len(MOMENTS)) -> np.ndarray:
    """Axes by moment and column."""
    return np.array(figure.axes).reshape(moments, -1)


def drawn(axes: Axes, arm: int) -> dict[int, float]:
    """Height by rounded place, of one arm's line and single markers."""
    points = {}
    for line in axes.lines:
        if line.get_color() == COLOURS[arm]:
            for x, y in np.asarray(line.get_xydata()).tolist():
                points[round(x)] = y
    return points


@pytest.mark.parametrize("sets", [SETS, ("D_A", "D_B")])
def test_every_panel_shows_the_numbers_of_the_table(sets: tuple[str, ...]) -> None:
    rows = table(layers=3, sets=sets)
    figure = draw(rows, MOMENTS)
    order = [*groups(3, tied=True)[1:], "all"]
    columns = [("D_B", "cosine"), ("held-out", "cosine"), ("D_M", "cosine")]
    columns += [("D_A", "norm"), ("D_B", "norm"), ("D_M", "norm")]
    columns = [column for column in columns if column[0] in sets]
    assert panels(figure).shape == (len(MOMENTS), len(columns))
    for (i, moment), (j, (name, measure)), (k, arm) in itertools.product(
        enumerate(MOMENTS), enumerate(columns), enumerate(("plain", "mixed"))
    ):
        expected = {}
        for row in rows:
            if (row["arm"], row["moment"]) != (arm, moment):
                continue
            place = order.index(row["group"]) + 1
            if measure == "cosine" and (row["first"], row["second"]) == ("D_A", name):
                expected[place] = row["cosine"]
            elif measure == "norm" and name in (row["first"], row["second"]):
                expected[place] = row["norm_first" if row["first"] == name else "norm_second"]
        assert drawn(panels(figure)[i, j], k) == expected


def test_what_is_undefined_or_zero_is_left_out() -> None:
    rows = table(arms=1)
    for row in rows:
        if (row["moment"], row["first"], row["group"]) == ("θ_A", "D_A", "layer 2"):
            row.update(cosine=float("nan"), norm_first=0.0)
    figure = draw(rows, MOMENTS[:2])
    for column in (0, 3):
        points = drawn(panels(figure, 2)[1, column], 0)
        assert [x for x, y in points.items() if np.isnan(y)] == [4]


def test_an_arm_without_a_set_or_a_moment_has_no_marks_there() -> None:
    rows = [
        row
        for row in table(arms=2)
        if not (row["arm"] == "plain" and "D_M" in (row["first"], row["second"]))
        and not (row["arm"] == "mixed" and row["moment"] == "θ_B")
    ]
    found = panels(draw(rows, MOMENTS))
    assert np.isnan(list(drawn(found[0, 2], 0).values())).all()
    assert np.isnan(list(drawn(found[3, 0], 1).values())).all()
    assert not np.isnan(list(drawn(found[3, 0], 0).values())).any()


def test_a_panel_with_nothing_says_why() -> None:
    rows = table(arms=1, sets=(*SETS, "update"))
    rows = [
        row
        for row in rows
        if not ("update" in (row["first"], row["second"]) and row["moment"] == "θ_0")
        and not ("D_M" in (row["first"], row["second"]) and row["moment"] == "θ_A")
    ]
    found = panels(draw(rows, MOMENTS))
    said = {
        (i, j): [text.get_text().replace("\n", " ") for text in axes.texts if text.get_size() == 6]
        for (i, j), axes in np.ndenumerate(found)
    }
    no_update = r"no update at $\theta_{0}$"
    assert {at: texts for at, texts in said.items() if texts} == {
        (0, 3): [no_update],
        (1, 2): ["not recorded"],
        (1, 6): ["not recorded"],
    }


def test_the_null_stands_beside_what_is_read_against_it() -> None:
    titles = [axes.get_title() for axes in draw(table(), MOMENTS[:1]).axes]
    assert [title.split("mathrm{")[2][:4] for title in titles[:2]] == ["B}}$", "held"]


def test_no_line_runs_through_embedding_norm_head_or_whole_model() -> None:
    (line,) = (
        line
        for line in draw(table(arms=1, layers=5, tied=False), MOMENTS[:1]).axes[0].lines
        if line.get_linestyle() != "None" and line.get_color() == COLOURS[0]
    )
    assert len(np.asarray(line.get_xydata())) == 5


def test_arms_differ_in_colour_line_and_marker() -> None:
    for looks in (COLOURS, LINES, MARKERS):
        assert len({str(look) for look in looks[:4]}) == 4


@pytest.mark.parametrize(
    ("arms", "layers", "tied", "sets"),
    [
        (1, 2, False, ("D_A", "D_B", "held-out")),
        (3, 4, True, SETS),
        pytest.param(4, 12, False, SETS, marks=pytest.mark.slow),
        (4, 32, False, SETS),
        pytest.param(4, 80, True, SETS, marks=pytest.mark.slow),
        (2, 32, True, ("D_A", "D_B", "D_C", "D_M", "held-out")),
    ],
)
def test_no_text_is_cut_off_or_overlaps(
    arms: int, layers: int, tied: bool, sets: tuple[str, ...], check_texts: Check
) -> None:
    check_texts(draw(table(arms, layers, tied, sets), ["θ_0", "θ_A+1"]))


@pytest.mark.parametrize("spread", [0.01, 5.0])
def test_the_axis_of_norms_always_carries_two_numbers(spread: float) -> None:
    axes = draw(table(spread=spread), MOMENTS[:1]).axes[3]
    low, high = axes.get_ylim()
    assert sum(low <= y <= high for y in axes.get_yticks()) >= 2


def test_checkpoints_are_in_the_order_of_training() -> None:
    """The second arm trains for longer, and has a checkpoint that the first one has not."""
    places = [("θ_0", 0, 0), ("θ_A", 0, 30), ("θ_B", 1, 9), ("θ_0", 0, 0), ("θ_0+61", 0, 61)]
    places += [("θ_A", 0, 90), ("θ_B", 1, 9)]
    rows = [{"moment": m, "stage": stage, "step": step} for m, stage, step in places]
    assert checkpoints_of(rows) == ["θ_0", "θ_0+61", "θ_A", "θ_B"]
    assert checkpoints_of([{"moment": "b"}, {"moment": "a"}]) == ["b", "a"]


def test_panels_have_no_digits_that_differ_between_two_layouts() -> None:
    """The layout's solver gives positions whose last bits differ from call to call."""
    panels = [axes.get_position(original=True).extents for axes in draw(table(), MOMENTS[:2]).axes]
    assert all(edge == round(edge, 9) for edges in panels for edge in edges)


def test_files_are_reproducible_and_fit_for_print(
    angle_table: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    """With intervals, and with some of the cosines undetermined."""
    rows = angle_table(2, groups(3, tied=False), undetermined=0.2)
    rows[0]["cosine"] = float("nan")
    files = save_figure(draw(rows, MOMENTS[:1]), rows, tmp_path / "one", "toy")
    again = save_figure(draw(rows, MOMENTS[:1]), rows, tmp_path / "two", "toy")
    assert [file.name for file in files] == ["toy.pdf", "toy.png", "toy.csv"]
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(f.name for f in files)
    pdf = files[0].read_bytes()
    assert b"/Subtype /Type3" not in pdf
    assert b"/FontFile2" in pdf
    assert b"Date" not in pdf
    assert imread(files[1]).shape[1] == 1400
    with files[2].open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["cosine"] == ""
    assert [float(line["cosine"]) for line in lines[1:]] == [row["cosine"] for row in rows[1:]]


def test_the_callers_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    save_figure(draw(table(), MOMENTS[:1]), table(), tmp_path, "toy")
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, geomix.figures.cosine_by_depth; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
