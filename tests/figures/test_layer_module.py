"""The heat map of layers and modules: its cells are the table's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from geomix.figures.layer_module import draw
from geomix.figures.style import SIGNED

Table = Callable[..., list[dict[str, Any]]]
Check = Callable[..., None]
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "norms")
PAIR = ("D_A", "D_B")


def groups(layers: int, tied: bool = True) -> list[str]:
    crossed = [f"layer {i} · {module}" for i in range(layers) for module in MODULES]
    first = "embedding+head (tied)" if tied else "embedding"
    return ["all", first, *crossed, "final norm", *([] if tied else ["head"])]


def cells(axes: Axes) -> dict[str, Rectangle]:
    found = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    return {str(patch.get_gid()): patch for patch in found}


def numbers(axes: Axes) -> dict[str, str]:
    """The text in each cell."""
    found = {}
    for group, cell in cells(axes).items():
        middle = (cell.get_x() + cell.get_width() / 2, cell.get_y() + cell.get_height() / 2)
        texts = [t.get_text() for t in axes.texts if t.get_position() == pytest.approx(middle)]
        found[group] = " ".join(texts)
    return found


def test_every_cell_has_its_number_and_its_colour(angle_table: Table) -> None:
    rows = angle_table(2, groups(3), PAIR)
    figure = draw(rows, "θ_A+4")
    mine = [row for row in rows if row["moment"] == "θ_A+4"]
    limit = math.ceil(10 * max(abs(row["cosine"]) for row in mine)) / 10
    for axes, arm in zip(figure.axes, ("none/none", "random/none"), strict=False):
        expected = {row["group"]: row["cosine"] for row in mine if row["arm"] == arm}
        shown, said = cells(axes), numbers(axes)
        assert set(shown) == set(expected)
        for group, value in expected.items():
            text = said[group].replace("−", "-")
            assert float(text) == pytest.approx(value, abs=0.005)
            assert "0." not in text
            face = shown[group].get_facecolor()
            assert face == pytest.approx(SIGNED(0.5 + value / limit / 2), abs=0.01)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["none/none", "random/none"]


def test_a_cell_is_where_its_layer_and_module_are(angle_table: Table) -> None:
    axes = draw(angle_table(1, groups(4), PAIR), "θ_0").axes[0]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == list(MODULES)
    heights = {t.get_text(): t.get_position()[1] for t in axes.get_yticklabels()}
    for group, cell in cells(axes).items():
        middle = cell.get_y() + cell.get_height() / 2
        if group.startswith("layer "):
            layer, module = group.removeprefix("layer ").split(" · ")
            assert heights[layer] == pytest.approx(middle)
            assert columns[int(cell.get_x())] == module
            assert cell.get_width() == 1
        else:
            assert cell.get_width() == len(MODULES)
    order = sorted(heights, key=lambda name: heights[name])
    assert order == ["emb.+head", "0", "1", "2", "3", "final norm", "whole"]


def test_undetermined_cells_are_hatched_and_undefined_ones_empty(angle_table: Table) -> None:
    rows = angle_table(1, groups(2), PAIR, ["θ_0"])
    by_group = {row["group"]: row for row in rows}
    by_group["layer 1 · k_proj"]["told"] = "undetermined"
    by_group["layer 0 · up_proj"]["cosine"] = float("nan")
    figure = draw(rows, "θ_0")
    axes = figure.axes[0]
    hatched = [group for group, cell in cells(axes).items() if cell.get_hatch()]
    assert hatched == ["layer 1 · k_proj"]
    assert numbers(axes)["layer 1 · k_proj"] == ""
    assert "layer 0 · up_proj" not in cells(axes)
    assert sum(text == "" for text in numbers(axes).values()) == 1
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["undetermined"]
    assert not draw(angle_table(1, groups(2), PAIR), "θ_0").legends


def test_the_difference_of_two_arms(angle_table: Table) -> None:
    rows = angle_table(2, groups(2), PAIR, ["θ_0"])
    plain, mixed = (
        {row["group"]: row for row in rows if row["arm"] == arm}
        for arm in ("none/none", "random/none")
    )
    plain["layer 0 · q_proj"]["told"] = "undetermined"
    mixed["layer 1 · q_proj"]["told"] = "undetermined"
    figure = draw(rows, "θ_0", difference=("none/none", "random/none"))
    axes, bars = figure.axes[2], figure.axes[3:]
    assert [bar.get_ylabel().split("(")[0] for bar in bars] == ["cos", "difference of the cosines"]
    assert axes.get_title() == "random/none − none/none"
    found = numbers(axes)
    hatched = {group for group, cell in cells(axes).items() if cell.get_hatch()}
    assert hatched == {"layer 0 · q_proj", "layer 1 · q_proj"}
    for group in set(plain) - hatched:
        expected = mixed[group]["cosine"] - plain[group]["cosine"]
        assert float(found[group].replace("−", "-")) == pytest.approx(expected, abs=0.005)


def test_numbers_that_do_not_fit_are_left_out(angle_table: Table) -> None:
    axes = draw(angle_table(1, groups(80), PAIR, ["θ_0"]), "θ_0").axes[0]
    assert len(cells(axes)) == len(groups(80))
    assert not axes.texts


@pytest.mark.parametrize("arms", [1, 2, 3])
def test_numbers_keep_off_their_neighbours(angle_table: Table, arms: int) -> None:
    figure = draw(angle_table(arms, groups(3), PAIR, ["θ_0"]), "θ_0")
    for axes in figure.axes[:arms]:
        wide = axes.get_window_extent().width / len(MODULES)
        found = [text for text in axes.texts if text.get_text()]
        assert len(found) > 20
        for text in found:
            assert text.get_window_extent().width < 0.9 * wide


def test_only_the_moment_and_the_pair_that_are_asked_for(angle_table: Table) -> None:
    rows = angle_table(1, groups(2))
    axes = draw(rows, "θ_B", pair=("held-out", "D_A")).axes[0]
    (row,) = (
        r
        for r in rows
        if (r["moment"], r["group"]) == ("θ_B", "all")
        and (r["first"], r["second"]) == ("D_A", "held-out")
    )
    assert float(numbers(axes)["all"].replace("−", "-")) == pytest.approx(row["cosine"], abs=0.005)
    with pytest.raises(ValueError, match="one metric at a time"):
        draw(rows + [r | {"metric": "adam"} for r in rows], "θ_0")


@pytest.mark.parametrize(
    ("arms", "layers", "tied"),
    [
        (1, 4, True),
        (3, 4, False),
        pytest.param(6, 32, False, marks=pytest.mark.slow),
        (2, 80, False),
    ],
)
def test_no_text_is_cut_off_or_overlaps(
    angle_table: Table, check_texts: Check, arms: int, layers: int, tied: bool
) -> None:
    rows = angle_table(arms, groups(layers, tied), PAIR, ["θ_0"], undetermined=0.2)
    figure = draw(rows, "θ_0")
    for axes in figure.axes:  # of the many numbers in cells, one row's are enough
        for text in axes.texts[60:]:
            text.remove()
    check_texts(figure)


def test_the_same_table_gives_the_same_bytes(
    angle_table: Table, check_files: Check, tmp_path: Path
) -> None:
    rows = angle_table(2, groups(3), PAIR, ["θ_0"], undetermined=0.2)
    check_files(lambda: draw(rows, "θ_0"), rows, tmp_path)
