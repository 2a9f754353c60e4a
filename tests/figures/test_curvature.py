"""The figures of spectra: what is drawn is what the table says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from geomix.figures.curvature import FIGURE, caption, density_caption, draw, draw_density

Row = dict[str, Any]


def rows(
    arms: int = 3, matrices: tuple[str, ...] = ("H_A", "H_B", "½(H_A H_B + H_B H_A)")
) -> list[Row]:
    found = []
    for a in range(arms):
        for m, matrix in enumerate(matrices):
            row: Row = {"arm": ["plain", "mixed", "control"][a], "seed": 0, "checkpoint": "θ_A"}
            row |= {"matrix": matrix, "block": "all", "smallest": -1.5 - a - m, "largest": 20.0 + a}
            row |= {"smallest_residual": 0.1, "largest_residual": 0.2, "along": 0.1 + a}
            row |= {"along_permuted": 0.01, "semidefinite": "refuted"}
            found.append(row)
    return found


def across(axes: Axes) -> list[NDArray[np.float64]]:
    """The abscissae of every line."""
    return [np.asarray(line.get_xdata(), dtype=np.float64) for line in axes.lines]


def test_bars_reach_from_the_smallest_to_the_largest_value() -> None:
    table = rows()
    table[0]["along"] = math.nan
    panels = draw(table).axes
    assert [axes.get_title() for axes in panels] == [
        r"$H_{\mathrm{A}}$ at $\theta_{A}$",
        r"$H_{\mathrm{B}}$ at $\theta_{A}$",
        r"$\frac{1}{2}(H_{\mathrm{A}}\,H_{\mathrm{B}}\,+\,H_{\mathrm{B}}\,H_{\mathrm{A}})$"
        r" at $\theta_{A}$",
    ]
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["plain", "mixed", "control"]
    for axes, matrix in zip(panels, ("H_A", "H_B"), strict=False):
        bars = [tuple(x.tolist()) for x in across(axes) if len(x) == 2]
        expected = {(r["smallest"], r["largest"]) for r in table if r["matrix"] == matrix}
        assert expected <= set(bars)
    assert sum(len(x) == 1 for x in across(panels[0])) == 5, "one κ is not known"
    assert "In 9 of 9 matrices" in caption(table)


def test_blocks_and_seeds_have_lines_of_their_own() -> None:
    table = [
        {**row, "block": block, "seed": seed}
        for row in rows(1, ("H_A",))
        for block in ("layer 0", "final norm")
        for seed in (0, 1)
    ]
    (axes,) = draw(table).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "seed 0, layer 0",
        "seed 1, layer 0",
        "seed 0, final norm",
        "seed 1, final norm",
    ]


@pytest.mark.parametrize("matrix", ["H(held-out)", "H(a$b)", "H_M1"])
def test_other_sets_are_written_as_they_are(matrix: str) -> None:
    title = draw(rows(1, (matrix,))).axes[0].get_title()
    assert title.count("$") % 2 == 0 or r"\$" in title


def test_densities() -> None:
    table = [
        {
            "arm": arm,
            "seed": 0,
            "checkpoint": "θ_A",
            "matrix": "H_A",
            "low": low,
            "high": high,
            "share": share,
            "half_width": 0.01,
            "starts": 10,
        }
        for arm in ("plain", "mixed")
        for low, high, share in ((-2.0, -0.002, 0.1), (-0.002, 0.002, 0.8), (0.002, 2.0, 1e-9))
    ]
    (axes,) = draw_density(table).axes
    assert axes.get_yscale() == "log"
    drawn = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    assert drawn[:2].tolist() == [0.1, 0.8]
    assert math.isnan(drawn[2])
    assert "means over 10 random starts" in density_caption(table)


def test_the_figure_is_drawn_again_from_its_table() -> None:
    assert set(FIGURE.columns) <= set(rows()[0])
    assert FIGURE.draw(rows()).axes
