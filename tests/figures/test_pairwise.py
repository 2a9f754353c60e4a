"""The figure of all pairs of examples: its cells, its colours, its texts and its files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from geomix.figures.pairwise import draw
from geomix.figures.style import SIGNED, save_figure

SETS = {"D_A": 7, "D_B": 5, "D_M": 4, "held-out": 6}


def rows(sets: dict[str, int], spread: float = 0.3) -> list[dict[str, Any]]:
    """Random cosines; the examples of a set in another order than their numbers."""
    rng = np.random.default_rng(0)
    names = [(name, int(i)) for name, n in sets.items() for i in rng.permutation(n)]
    made = []
    for a, b in itertools.combinations_with_replacement(range(len(names)), 2):
        cosine = 1.0 if a == b else float(np.clip(rng.normal(0, spread), -1, 1))
        (one, i), (other, j) = names[a], names[b]
        pair = {"set": one, "example": i, "other_set": other, "other_example": j}
        made.append(pair | {"cosine": cosine})
    return made


def image(figure: Figure) -> Any:
    return figure.axes[0].images[0]


def test_every_cell_is_a_rows_cosine() -> None:
    given = rows(SETS)
    given[3]["cosine"] = float("nan")
    found = image(draw(given)).get_array()
    order = list(dict.fromkeys((row["set"], row["example"]) for row in given))
    assert found.shape == (22, 22)
    for row in given:
        i = order.index((row["set"], row["example"]))
        j = order.index((row["other_set"], row["other_example"]))
        for a, b in ((i, j), (j, i)):
            if i == j or np.isnan(row["cosine"]):
                assert found.mask[a, b]
            else:
                assert found[a, b] == row["cosine"]
    assert found.mask.sum() == 22 + 2


def test_colours_are_symmetric_about_zero() -> None:
    given = rows(SETS)
    drawn = image(draw(given))
    most = max(abs(r["cosine"]) for r in given if r["cosine"] != 1.0)
    assert drawn.get_clim() == (-most, most)
    at = drawn.norm(most * np.array([-1, -0.25, 0, 0.25, 1])).tolist()
    assert at == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert drawn.cmap == SIGNED
    assert image(draw(rows(SETS, spread=1e-3))).get_clim() == (-0.05, 0.05)


def test_sets_are_parted_and_counted() -> None:
    axes = draw(rows(SETS)).axes[0]
    lines = {float(np.unique(line.get_ydata())[0]) for line in axes.lines[::2]}
    assert {6.5, 11.5, 15.5} <= lines
    texts = [label.get_text().split("\n")[-1] for label in axes.get_xticklabels()]
    assert texts == ["7", "5", "4", "6"]
    assert [float(tick) for tick in axes.get_xticks()] == [3.0, 9.0, 13.5, 18.5]


def test_the_title_says_whose_and_when_and_labels_what_orders_and_scales() -> None:
    figure = draw([row | {"arm": "mixed", "moment": "θ_A+4"} for row in rows(SETS)])
    axes, bar = figure.axes
    assert axes.get_title() == r"mixed at $\theta_{A}$+4"
    assert axes.get_ylabel() == "within a set: the most opposed first"
    assert "signed root" in bar.get_xlabel()
    assert draw(rows(SETS)).axes[0].get_title() == ""


@pytest.mark.parametrize("sets", [SETS, {"D_A": 64, "D_B": 4, "held-out": 64}, {"D_A": 3}])
def test_no_text_is_cut_off_or_overlaps(sets: dict[str, int]) -> None:
    figure = draw(rows(sets))
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [*axis.get_ticklabels(), axis.label]
            found += [label for label in labels if label.get_visible() and label.get_text()]
    boxes = [label.get_window_extent() for label in found]
    assert len(boxes) > 6
    for box in boxes:
        assert figure.bbox.padded(0.5).contains(*box.min)
        assert figure.bbox.padded(0.5).contains(*box.max)
    for a, b in itertools.combinations(boxes, 2):
        assert Bbox.intersection(a, b) is None


def test_files_are_reproducible_and_a_column_wide(tmp_path: Path) -> None:
    given = rows(SETS)
    files = save_figure(draw(given), given, tmp_path / "one", "pairs")
    again = save_figure(draw(given), given, tmp_path / "two", "pairs")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert imread(files[1]).shape[1] == 680
    assert len(files[2].read_text().splitlines()) == 1 + len(given)
