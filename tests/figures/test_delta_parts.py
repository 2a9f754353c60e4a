"""Δ's parts between levels: what is drawn is what the table says, and nothing runs into it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geomix.figures.delta_parts import draw


def chain(name: str, arms: list[tuple[str, float]], half: float = math.nan) -> list[dict[str, Any]]:
    """Return the places of one chain; each difference in parts of 1, −3 and 3 times itself."""
    rows = []
    for k, (arm, loss) in enumerate(arms):
        if k:
            base, whole = arms[k - 1][1], loss - arms[k - 1][1]
            for part, share in (("Δ₁", 1), ("Δ₂", -3), ("Δ₃", 3)):
                rows.append((part, "part", base, share * whole))
                base += share * whole
        rows.append((arm, "arm", 0.0, loss))
    keys = ("bar", "kind", "base", "value")
    return [
        {"chain": name, **dict(zip(keys, row, strict=True)), "half_width": half} for row in rows
    ]


LONG = [
    chain(f"chain {k}", [("plain", 5.2), ("prose-control", 5.1 + k), ("prose-passages", 4.9)], 0.1)
    for k in range(3)
]


def test_levels_and_parts_are_the_tables() -> None:
    (axes,) = draw(chain("one", [("plain", 5.0), ("mixed", 4.8)])).axes
    levels = [
        float(np.asarray(line.get_ydata())[0]) for line in axes.lines if line.get_gid() == "level"
    ]
    assert levels == [5.0, 4.8]
    patches: list[Any] = list(axes.patches)
    bars = [(bar.get_y(), bar.get_height()) for bar in patches]
    assert [pytest.approx(bar) for bar in bars] == [(5.0, -0.2), (4.8, 0.6), (5.4, -0.6)]


def test_small_parts_of_large_losses_are_seen() -> None:
    (axes,) = draw(chain("one", [("plain", 50.0), ("mixed", 49.9)])).axes
    low, high = axes.get_ylim()
    assert 49.5 < low < 49.9
    assert 50.2 < high < 50.5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_text_is_cut_off_or_overlaps(check_texts: Callable[..., None], count: int) -> None:
    check_texts(draw([row for rows in LONG[:count] for row in rows]), 10)
