"""The figure of arrows in a plane: its drawing, and the rows that it rejects."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Arc
from matplotlib.text import Annotation

from geomix.figures.plane import draw

Table = Callable[..., list[dict[str, Any]]]
Check = Callable[..., None]


def arrows(axes: Axes) -> dict[str, tuple[float, float]]:
    """Tips by direction."""
    tips: dict[str, tuple[float, float]] = {}
    for text in axes.texts:
        if isinstance(text, Annotation):
            tips[str(text.get_gid()).removeprefix("arrow ")] = text.xy
    return tips


def thick(axes: Axes) -> dict[str, float]:
    """Length of the thick part by direction."""
    ends = {str(line.get_gid()): np.asarray(line.get_xydata())[-1] for line in axes.lines}
    return {
        gid.removeprefix("share "): float(np.hypot(*end))
        for gid, end in ends.items()
        if gid.startswith("share ")
    }


def names(axes: Axes) -> dict[str, str]:
    found = ((str(text.get_gid()), text.get_text()) for text in axes.texts)
    return {gid.removeprefix("name "): text for gid, text in found if gid.startswith("name ")}


def planted(rows: list[dict[str, Any]], vectors: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The rows of the sets that are named, with the numbers of their vectors."""
    found = []
    for row in rows:
        if {row["first"], row["second"]} <= set(vectors):
            a, b = (np.array(vectors[row[key]]) for key in ("first", "second"))
            sizes = np.linalg.norm(a), np.linalg.norm(b)
            cosine = float(a @ b / sizes[0] / sizes[1]) if min(sizes) else math.nan
            angle = math.degrees(math.acos(cosine))
            norms = {"norm_first": float(sizes[0]), "norm_second": float(sizes[1])}
            found.append(row | norms | {"cosine": cosine, "angle_degrees": angle})
    return found


KNOWN = {
    "D_A": [2.0, 0.0, 0.0],
    "D_B": [-1.0, math.sqrt(3), 0.0],
    "D_M": [0.0, 3.0, 4.0],
    "update": [0.3, -0.3, 0.0],
}


def test_arrows_shares_angle_and_norms_are_those_of_known_vectors(angle_table: Table) -> None:
    """By hand: 120° between D_A and D_B, 60 % of D_M upwards in their plane, the update whole."""
    rows = planted(angle_table(1, moments=["θ_A+4"]), KNOWN)
    for row in rows:
        row["half_width"] = 0.1
    (axes,) = draw(rows, ["θ_A+4"]).axes
    expected = {"D_A": 0, "D_B": 120, "D_M": 90, "update": -45}
    found = {name: math.degrees(math.atan2(y, x)) for name, (x, y) in arrows(axes).items()}
    assert found == pytest.approx(expected, abs=1e-9)
    assert all(math.hypot(*tip) == pytest.approx(1) for tip in arrows(axes).values())
    assert thick(axes)["D_M"] == pytest.approx(0.6)
    assert names(axes)["D_M"].endswith("60 %")
    assert names(axes)["update"].endswith("100 %")
    assert "%" not in names(axes)["D_A"] + names(axes)["D_B"]
    (arc,) = axes.patches
    assert isinstance(arc, Arc)
    assert (arc.theta1, arc.theta2) == pytest.approx((0, 120))
    said = axes.get_xlabel().splitlines()
    assert said[0] == "angle 120° (114–127)"  # of cosines -0.4 and -0.6
    assert r"|$g_{\mathrm{A}}$| 2  |$g_{\mathrm{B}}$| 2" in said
    assert said[-1].endswith(r"|$\Delta\theta$| 0.42")


def test_every_arm_and_moment_has_its_own_panel(angle_table: Table) -> None:
    rows = angle_table(2)
    moments = ["θ_0", "θ_A+4"]
    panels = draw(rows, moments).axes
    places = [(arm, moment) for moment in moments for arm in ("none/none", "random/none")]
    for axes, (arm, moment) in zip(panels, places, strict=True):
        (row,) = (
            r
            for r in rows
            if (r["arm"], r["moment"], r["first"], r["second"]) == (arm, moment, "D_A", "D_B")
        )
        assert axes.get_xlabel().startswith(f"angle {row['angle_degrees']:.0f}° (")
        assert arrows(axes)["D_B"][0] == pytest.approx(row["cosine"])
        assert set(arrows(axes)) == {"D_A", "D_B", "D_M", "update"}


def test_a_gradient_of_zero_has_no_arrow_and_a_word(angle_table: Table) -> None:
    rows = planted(angle_table(1, moments=["θ_0"]), KNOWN | {"D_A": [0.0, 0.0, 0.0]})
    (axes,) = draw(rows, ["θ_0"]).axes
    assert arrows(axes) == {}
    assert axes.get_xlabel().startswith(r"no angle: $g_{\mathrm{A}}$ = 0")
    rows = planted(angle_table(1, moments=["θ_0"]), KNOWN | {"D_M": [0.0, 0.0, 0.0]})
    (axes,) = draw(rows, ["θ_0"]).axes
    assert set(arrows(axes)) == {"D_A", "D_B", "update"}


@pytest.mark.parametrize(("sign", "degrees"), [(1, 0), (-1, 180)])
def test_parallel_gradients_are_said_to_span_no_plane(
    angle_table: Table, sign: int, degrees: int
) -> None:
    rows = planted(angle_table(1, moments=["θ_0"]), KNOWN | {"D_B": [sign * 5.0, 0.0, 0.0]})
    (axes,) = draw(rows, ["θ_0"]).axes
    said = axes.get_xlabel().splitlines()
    assert said[0].startswith(f"angle {degrees}°")
    assert said[1] == "one line, no plane"
    assert arrows(axes)["D_B"] == pytest.approx((sign, 0))
    assert thick(axes)["update"] == pytest.approx(math.sqrt(0.5))


def test_what_is_undetermined_is_faint_and_said(angle_table: Table) -> None:
    rows = angle_table(2, moments=["θ_0"])
    for row in rows:
        pair = (row["first"], row["second"])
        if row["arm"] == "none/none" and pair in (("D_A", "D_B"), ("D_B", "update")):
            row["told"] = "undetermined"
    figure = draw(rows, ["θ_0"])

    def faint(axes: Axes) -> set[str]:
        return {str(line.get_gid())[6:] for line in axes.lines if line.get_alpha() == 0.4}

    assert [faint(axes) for axes in figure.axes] == [{"D_B", "update"}, set()]
    assert ["undetermined" in axes.get_xlabel() for axes in figure.axes] == [True, False]
    assert [t.get_text() for t in figure.legends[0].get_texts()][-1] == "undetermined"
    clear = draw(angle_table(2), ["θ_0"])
    assert len(clear.legends[0].get_texts()) == 3


def test_an_arm_without_a_moment_says_so(angle_table: Table) -> None:
    rows = [r for r in angle_table(2) if (r["arm"], r["moment"]) != ("random/none", "θ_B")]
    axes = draw(rows, ["θ_0", "θ_B"]).axes[3]
    assert [text.get_text() for text in axes.texts] == ["not recorded"]


def test_two_metrics_at_a_time_are_refused(angle_table: Table) -> None:
    rows = angle_table(1)
    with pytest.raises(ValueError, match="one metric at a time"):
        draw(rows + [row | {"metric": "adam"} for row in rows], ["θ_0"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("arms", "moments"), [(1, ["θ_0", "θ_A", "θ_A+4"]), (2, ["θ_A+4"]), (6, ["θ_0", "θ_A+4"])]
)
def test_no_text_is_cut_off_or_overlaps(
    angle_table: Table, check_texts: Check, arms: int, moments: list[str], seed: int
) -> None:
    check_texts(draw(angle_table(arms, undetermined=0.2, seed=seed), moments), 8)


def test_the_same_table_gives_the_same_bytes(
    angle_table: Table, check_files: Check, tmp_path: Path
) -> None:
    rows = angle_table(2, undetermined=0.2)
    check_files(lambda: draw(rows, ["θ_A"]), rows, tmp_path)


def test_an_angle_that_is_not_defined_is_not_called_zero(angle_table: Table) -> None:
    rows = angle_table(1, moments=["θ_0"])
    for row in rows:
        if row["first"] == "D_A":
            row.update(cosine=math.nan, norm_first=math.inf)
    (axes,) = draw(rows, ["θ_0"]).axes
    assert axes.get_xlabel().startswith("no angle: not defined")
    assert set(arrows(axes)) <= {"D_A"}


def stems(axes: Axes) -> dict[str, float]:
    """Return the end of each norm's stem on the axis of its panel, as a share of that axis."""
    lines = {str(line.get_gid()): np.asarray(line.get_xydata()) for line in axes.lines}
    (left, _), (right, _) = lines["scale"]
    return {
        gid.removeprefix("norm "): float((ends[-1, 0] - left) / (right - left))
        for gid, ends in lines.items()
        if gid.startswith("norm ")
    }


def test_norms_are_seen_on_one_logarithmic_axis_for_all_panels(angle_table: Table) -> None:
    """The axis for norms 2, 2 and 5 beside 0.02, 2 and 5 is from 0.01 to 10: three decades."""
    rows = planted(angle_table(2, moments=["θ_0"]), KNOWN)
    for row in rows:
        if row["arm"] == "random/none" and row["first"] == "D_A":
            row["norm_first"] = 0.02
    plain, mixed = draw(rows, ["θ_0"]).axes
    two, five = (np.log10(x / 0.01) / 3 for x in (2, 5))
    assert stems(plain) == pytest.approx({"D_A": two, "D_B": two, "D_M": five})
    assert stems(mixed) == pytest.approx({"D_A": np.log10(2) / 3, "D_B": two, "D_M": five})
    said = [text.get_text() for text in plain.texts]
    assert {r"$10^{-2}$", r"$10^{1}$"} <= set(said)


def test_a_name_that_makes_room_is_tied_to_its_arrow(angle_table: Table) -> None:
    beside = [math.cos(0.1), math.sin(0.1), 0.0]
    apart = [0.0, -1.0, 0.0]
    tied = {}
    for key, vector in (("beside", beside), ("apart", apart)):
        rows = planted(
            angle_table(1, moments=["θ_0"]), KNOWN | {"D_M": vector, "update": [-1.0, -0.1, 0.0]}
        )
        (axes,) = draw(rows, ["θ_0"]).axes
        ends = {str(line.get_gid()): np.asarray(line.get_xydata()) for line in axes.lines}
        tied[key] = {gid.removeprefix("tie ") for gid in ends if gid.startswith("tie ")}
        for gid, points in ends.items():
            if gid.startswith("tie "):
                assert points[0] == pytest.approx(arrows(axes)[gid.removeprefix("tie ")])
        boxes = {str(text.get_gid()): text.get_window_extent() for text in axes.texts}
        for gid, points in ends.items():  # no line to a name crosses any name
            for name, box in boxes.items():
                if gid.startswith("tie ") and name.startswith("name "):
                    assert not any(box.contains(*at) for at in axes.transData.transform(points))
    assert "D_M" in tied["beside"]
    assert tied["apart"] == set()
