"""The figures of local models and of path factors: what is drawn, where, and how it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geomix.figures import path_factors, reach
from geomix.measures.reach import GRID

Rows = list[dict[str, Any]]
CURVES = {"measured": 0.5, "first order": -0.01, "Hessian": 0.4, "Gauss–Newton": 0.3}


def x_of(line: Any) -> Any:
    return np.asarray(line.get_xdata(), dtype=np.float64)


def y_of(line: Any) -> Any:
    return np.asarray(line.get_ydata(), dtype=np.float64)


def along(*arms: str, seeds: int = 1, null: bool = True) -> Rows:
    draws = ["real", "permuted 1"] if null else ["real"]
    return [
        {"arm": arm, "seed": seed, "draw": draw, "t": t, "curve": curve, "reach": 0.3}
        | {"change": (size + 0.1 * seed) * t**2 * (1.0 if draw == "real" else 0.05)}
        for arm in arms
        for seed in range(seeds)
        for draw in draws
        for curve, size in CURVES.items()
        for t in GRID
    ]


def segments(*arms: str, fails: str = "") -> Rows:
    return [
        {"arm": arm, "seed": 0, "partition": partition, "segment": k + 1, "share": (k + 0.5) / 6}
        | {"change": 0.1 * k, "norm": 1.0 + k, "cosine": 0.02 * k - 0.01, "length": 0.5}
        | {"fails": fails if arm == arms[-1] else ""}
        for arm in arms
        for partition in ("K", "K/2")
        for k in range(6)
    ]


def test_every_model_is_a_line_and_its_reach_a_tick_on_what_was_measured() -> None:
    figure = reach.draw(along("plain", "mixed"))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["plain", "mixed"]
    lines = panels[0].lines
    (measured,) = [line for line in lines if line.get_color() == "black"]
    np.testing.assert_allclose(y_of(measured), 0.5 * np.array(GRID) ** 2)
    ticks = [line for line in lines if line.get_marker() == "|"]
    assert len(ticks) == 3
    for tick in ticks:
        assert float(x_of(tick)[0]) == 0.3
        assert float(y_of(tick)[0]) == pytest.approx(0.5 * 0.3**2)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*CURVES, "permuted displacement"]


def test_seeds_are_averaged_and_their_ticks_stay() -> None:
    rows = [
        row | {"reach": 0.3 if row["seed"] else 0.1} for row in along("plain", seeds=2, null=False)
    ]
    axes = reach.draw(rows).axes[0]
    (measured,) = [line for line in axes.lines if line.get_color() == "black"]
    assert float(y_of(measured)[-1]) == pytest.approx(0.55)
    assert len([line for line in axes.lines if line.get_marker() == "|"]) == 6
    assert "Means over 2 seeds" in reach.caption(rows)
    assert "permuted" not in reach.caption(rows)


def test_a_loss_that_does_not_change_is_drawn(check_texts: Callable[..., None]) -> None:
    rows = [row | {"change": 0.0, "reach": float("nan")} for row in along("plain")]
    check_texts(reach.draw(rows), 5)


def test_factors_are_those_of_all_segments_and_faint_where_the_gate_fails() -> None:
    rows = segments("plain", "mixed", fails="mixed: off")
    figure = path_factors.draw(rows)
    change, norm, cosine, length = figure.axes[:4]
    assert norm.get_yscale() == length.get_yscale() == "log"
    assert change.get_yscale() == cosine.get_yscale() == "linear"
    plain = norm.lines[0]
    np.testing.assert_allclose(y_of(plain), np.arange(6) + 1.0)
    np.testing.assert_allclose(x_of(plain), (np.arange(6) + 0.5) / 6)
    assert any((line.get_alpha() or 1) < 1 for line in norm.lines[1:])
    assert "(mixed)" in path_factors.caption(rows)
    assert "Faint" not in path_factors.caption(segments("plain"))
