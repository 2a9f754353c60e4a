"""Names chosen by users: every figure draws them literally, or their visible part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure

from geomix.figures import (
    cosine_by_depth,
    cosine_row,
    forgetting_path,
    layer_module,
    over_training,
    pairwise,
    path_factors,
    plane,
    reach,
    retention,
)
from geomix.figures.labels import checkpoint_symbol, direction_symbol, plain, set_symbol
from geomix.figures.style import save_figure

Rows = list[dict[str, Any]]
Table = Callable[..., Rows]
Check = Callable[..., None]
NAMES = (
    r"$\frac{$x_1",
    "$5 and 6$",
    "_a^b_\\",
    r"\$\alpha\$",
    "\x1b[31mred\n\t\x00\u202eend",
    "l" * 150 + "ong" * 17,
)
MOMENTS = ["θ_A", "θ_A+4"]
GROUPS = ("all", "embedding", "layer 0 · mlp", "layer 1 · mlp")


def named(rows: Rows, name: str) -> Rows:
    """The rows of a table of two arms, the second one's under the name."""
    first = rows[0]["arm"]
    return [row if row["arm"] == first else row | {"arm": name} for row in rows]


def scored(name: str) -> Rows:
    at = {"examples": 9, "exact_match": 50.0, "half_width": 1.0, "n": 3}
    return [
        at | {"arm": arm, "stage": stage, "stage_name": name, "step": step, "set": one}
        for arm in ("plain", name)
        for one in ("D_A", name)
        for stage, step in ((0, 0), (0, 5), (1, 3), (1, 6))
    ]


def changes(name: str) -> Rows:
    return [
        {"arm": arm, "set": name, "layer": layer, "block": block, "part": part, "change": 0.1}
        | {"half_width": 0.01}
        for arm in ("plain", name)
        for layer in ("embedding", "layer 0", "layer 1", "final norm")
        for block, part in (("mlp", "total"), ("all", "total"), ("mlp", name), ("mlp", "own"))
    ]


def pairs(name: str) -> Rows:
    where = {"arm": name, "moment": "θ_A", "cosine": 0.1}
    ends = [(one, i) for one in ("D_A", name) for i in range(4)]
    return [
        where | {"set": a, "example": i, "other_set": b, "other_example": j}
        for n, (a, i) in enumerate(ends)
        for b, j in ends[n:]
    ]


def modelled(name: str) -> Rows:
    """Enough for both figures of `geomix analyze forgetting`."""
    where = {"draw": "real", "curve": "measured", "reach": 0.1, "partition": "K", "fails": name}
    numbers = dict.fromkeys(("change", "norm", "cosine", "length", "share"), 0.1)
    return [
        where | numbers | {"arm": arm, "segment": k, "t": 0.1 * k}
        for arm in ("plain", name)
        for k in (1, 2)
    ]


def figures(table: Table, name: str) -> dict[str, Figure]:
    angles = named(table(2, ("all", "layer 0", "layer 1"), moments=MOMENTS), name)
    crossed = named(table(2, GROUPS, ("D_A", "D_B"), MOMENTS), name)
    other = [row | {"second": name} if row["second"] == "D_M" else row for row in angles]
    other = [row | {"first": name} if row["first"] == "D_M" else row for row in other]
    arms = ("none/none", name)
    return {
        "depth": cosine_by_depth.draw(other, MOMENTS[:1]),
        "row": cosine_row.draw(other, MOMENTS[:1], ("D_A", name)),
        "plane": plane.draw(other, MOMENTS[:1], ("D_A", "D_B", name)),
        "modules": layer_module.draw(crossed, "θ_A", difference=arms),
        "along": over_training.draw(other, scored(name), "cosine", others=("D_B", name)),
        "retention": retention.draw(scored(name)),
        "pairs": pairwise.draw(pairs(name)),
        "path": forgetting_path.draw(changes(name)),
        "reach": reach.draw(modelled(name)),
        "factors": path_factors.draw(modelled(name)),
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (i in (1, 2, 3)))
        for i, name in enumerate(NAMES)
    ],
    ids=range(len(NAMES)),
)
def test_every_figure_draws_any_name(
    angle_table: Table, check_texts: Check, tmp_path: Path, name: str
) -> None:
    for kind, figure in figures(angle_table, name).items():
        check_texts(figure, 5)
        if kind == "retention":
            save_figure(figure, [{"arm": name}], tmp_path, kind)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_never_a_formula_and_keeps_what_can_be_seen(name: str) -> None:
    for write in (plain, set_symbol, checkpoint_symbol):
        text = write(name)
        assert not is_math_text(text)
        shown = text.replace(r"\$", "$")  # as matplotlib shows what is no formula
        assert shown.isprintable()
        assert len(shown) <= 32
        if name.isprintable() and len(name) < 32:
            assert shown == name
    assert r"\frac" not in direction_symbol(name) or r"\$" in direction_symbol(name)


def test_captions_say_what_n_is_and_nothing_that_cannot_be_seen(
    angle_table: Table, tmp_path: Path
) -> None:
    rows = angle_table(1)
    for module in (cosine_by_depth, cosine_row, plane, layer_module, over_training):
        assert "n = 10" in module.caption(rows)
        assert "(n = 1)" in module.caption([row | {"n": 1} for row in rows])
    assert "n = 3" in retention.caption(scored("x"))
    assert "n = 8 in all" in pairwise.caption(pairs("x"))
    for name in NAMES:
        said = forgetting_path.caption(changes(name))
        assert said.isprintable()
        assert 2 <= said.count(". ") + 1 <= 5
        assert path_factors.caption(modelled(name)).isprintable()
    figure = pairwise.draw(pairs("x"))
    files = save_figure(figure, [], tmp_path, "toy", said)
    assert [file.suffix for file in files] == [".pdf", ".png", ".csv", ".txt"]
    assert " ".join(files[-1].read_text().split()) == said


def test_long_names_differ_where_their_ends_do() -> None:
    assert len({plain("x" * 200 + end) for end in "abc"}) == 3
    assert plain("x" * 200)[:3] == "xxx"
    assert set_symbol("D_A1") == r"$D_{\mathrm{A1}}$"
    assert set_symbol("D_my_set") == "D_my_set"
