"""Cosines by layer: intervals and what is undetermined; the rest is in `test_figures.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from geomix.figures.cosine_by_depth import draw
from geomix.figures.style import COLOURS

Table = Callable[..., list[dict[str, Any]]]
Check = Callable[..., None]
MOMENTS = ["θ_0", "θ_A", "θ_A+4", "θ_B"]


def groups(layers: int) -> list[str]:
    return ["all", "embedding", *(f"layer {i}" for i in range(layers)), "final norm", "head"]


def cell(rows: list[dict[str, Any]], second: str, moment: str = "θ_0") -> list[dict[str, Any]]:
    """Rows of one arm's panel, from the first layer on."""
    return [
        r
        for r in rows
        if (r["arm"], r["moment"]) == ("none/none", moment)
        and (r["first"], r["second"]) == ("D_A", second)
        and r["group"].startswith("layer ")
    ]


def points(axes: Axes, **where: Any) -> set[float]:
    """Heights of the first arm's marks whose line has all of these properties."""
    return {
        round(y, 12)
        for line in axes.lines
        if line.get_color() == COLOURS[0]
        and all(getattr(line, f"get_{key}")() == value for key, value in where.items())
        for _, y in np.asarray(line.get_xydata()).tolist()
        if np.isfinite(y)
    }


def test_bands_and_bars_are_the_tables_intervals(angle_table: Table) -> None:
    rows = angle_table(1, groups(4), ("D_A", "D_B", "held-out"))
    axes = draw(rows, MOMENTS[:1]).axes[0]
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    corners = band.get_paths()[0].vertices
    heights = {round(float(y), 12) for y in np.asarray(corners)[:, 1]}
    for row in cell(rows, "D_B"):
        for end in (row["cosine"] - row["half_width"], row["cosine"] + row["half_width"]):
            assert round(min(max(end, -1.0), 1.0), 12) in heights
    (whole,) = (
        r
        for r in rows
        if (r["group"], r["moment"], r["first"], r["second"]) == ("all", "θ_0", "D_A", "D_B")
    )
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    ends = [np.asarray(s)[:, 1].tolist() for bar in bars for s in bar.get_segments()]
    assert len(ends) == 4  # embedding, final norm, head, whole
    half = whole["half_width"]
    expected = [max(whole["cosine"] - half, -1), min(whole["cosine"] + half, 1)]
    assert any(end == pytest.approx(expected) for end in ends)


def test_without_intervals_nothing_is_added(angle_table: Table) -> None:
    rows = [r | {"half_width": float("nan")} for r in angle_table(2, groups(3))]
    for axes in draw(rows, MOMENTS[:2]).axes:
        assert not any(isinstance(c, PolyCollection) for c in axes.collections)
        assert not any(c.get_segments() for c in axes.collections if isinstance(c, LineCollection))


def test_an_interval_as_wide_as_the_axis_is_left_out_and_said(angle_table: Table) -> None:
    rows = angle_table(1, groups(4), ("D_A", "D_B", "held-out"))
    for row in cell(rows, "D_B")[1:3]:
        row["half_width"] = 1.0
    for row in rows:
        if (row["group"], row["moment"]) == ("head", "θ_0"):
            row["half_width"] = 4.0
    figure = draw(rows, MOMENTS[:1])
    axes = figure.axes[0]
    assert not any(  # no band: what is left of it stands alone, at layers 0 and 3
        np.ptp(np.asarray(path.vertices)[:, 0]) > 0
        for c in axes.collections
        if isinstance(c, PolyCollection)
        for path in c.get_paths()
    )
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    where = sorted(round(np.asarray(s)[0, 0]) for bar in bars for s in bar.get_segments())
    assert where == [1, 2, 5, 6, 8]  # all but layers 1, 2 and the head
    assert figure.legends[0].get_texts()[-1].get_text() == "intervals over ±1: not drawn"


def test_undetermined_cosines_are_open_or_faint(angle_table: Table) -> None:
    rows = angle_table(1, groups(5), ("D_A", "D_B", "held-out"))
    chosen = cell(rows, "D_B")[1:3]
    chosen += [r for r in rows if r["group"] == "head" and r["second"] == "D_B"]
    for row in chosen:
        row["told"] = "undetermined"
    figure = draw(rows, MOMENTS[:1])
    axes = figure.axes[0]
    layers = {round(r["cosine"], 12) for r in cell(rows, "D_B")}
    unclear = {round(r["cosine"], 12) for r in chosen[:2]}
    full = points(axes, markerfacecolor=COLOURS[0], alpha=None, linestyle="-")
    assert full == layers - unclear
    assert points(axes, alpha=0.35, marker="None") == layers
    assert points(axes, markerfacecolor="white", alpha=None) == unclear
    (legend,) = (one for one in figure.legends if one.get_texts()[0].get_text() == "determined")
    assert [text.get_text() for text in legend.get_texts()] == ["determined", "undetermined"]
    (head,) = (r for r in chosen[2:] if r["moment"] == "θ_0")
    assert points(axes, markerfacecolor="white", alpha=0.35) == {round(head["cosine"], 12)}
    other = figure.axes[1]
    assert points(other, alpha=0.35) == set()
    assert not points(other, markerfacecolor="white", alpha=None)


def test_a_determined_layer_between_two_others_is_marked_in_a_deep_model(
    angle_table: Table,
) -> None:
    rows = angle_table(1, groups(32), ("D_A", "D_B", "held-out"))
    panel = cell(rows, "D_B")
    for i, row in enumerate(panel):
        row["told"] = "" if i == 17 else "undetermined"
    (line,) = (
        line
        for line in draw(rows, MOMENTS[:1]).axes[0].lines
        if np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum() == 1
        and line.get_linestyle() == "-"
    )
    assert line.get_markevery() == [17]
    assert np.nanmax(np.asarray(line.get_ydata(), dtype=float)) == panel[17]["cosine"]


def test_heads_stand_at_their_layer_and_no_line_runs_through_them(angle_table: Table) -> None:
    heads = [f"layer {i} head {j}" for i in range(3) for j in range(2)]
    rows = angle_table(1, ["all", *heads], ("D_A", "D_B"))
    for row in rows:
        row["place"] = row["group"].split(" head")[0]
    axes = draw(rows, MOMENTS[:1]).axes[0]
    mine = [line for line in axes.lines if line.get_color() == COLOURS[0]]
    assert not any(np.size(line.get_xdata()) for line in mine if line.get_linestyle() != "None")
    marks = [line for line in mine if line.get_linestyle() == "None"]
    where = sorted(round(x) for line in marks for x in np.asarray(line.get_xdata()).tolist())
    assert where == [1, 1, 2, 2, 3, 3, 4]


def test_update_and_nulls_have_cosines_and_no_norms(angle_table: Table) -> None:
    titles = [axes.get_title() for axes in draw(angle_table(1, groups(2)), MOMENTS[:1]).axes]
    assert sum(title.startswith("cos(") for title in titles) == 5
    assert [title for title in titles if title.startswith("|")] == [
        rf"|$g_{{\mathrm{{{name}}}}}$|" for name in "ABM"
    ]
    assert r"cos($g_{\mathrm{A}}$, $-\Delta\theta$)" in titles


def test_two_metrics_at_a_time_are_refused(angle_table: Table) -> None:
    rows = angle_table(1, groups(2))
    with pytest.raises(ValueError, match="one metric at a time"):
        draw(rows + [row | {"metric": "adam"} for row in rows], MOMENTS)


@pytest.mark.parametrize(("arms", "layers"), [(2, 4), (6, 32)])
def test_no_text_is_cut_off_or_overlaps(
    angle_table: Table, check_texts: Check, arms: int, layers: int
) -> None:
    rows = angle_table(arms, groups(layers), undetermined=0.2)
    check_texts(draw(rows, ["θ_0", "θ_A+4"]))


def test_heads_are_named_whole_and_layers_by_number(angle_table: Table) -> None:
    """The word `layer` stands below numbers alone: upright names reach to where it would be."""
    heads = ["all", *(f"layer {i} head {h}" for i in range(2) for h in range(4)), "no head"]
    for names, word, first in ((heads, False, "layer 0 head 0"), (groups(4), True, "0")):
        axes = draw(angle_table(1, names, ("D_A", "D_B")), MOMENTS[:2]).axes
        texts = [text.get_text() for one in axes for text in one.texts]
        named = [label.get_text() for one in axes for label in one.get_xticklabels()]
        assert ("layer" in texts) == word
        assert first in named
