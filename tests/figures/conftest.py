"""Checks for every figure, and a table as `geomix analyze grad-angle` writes it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from geomix.figures.style import save_figure

ARMS = (
    "none/none",
    "random/none",
    "control/none",
    "none/generic",
    "none/control",
    "random/generic",
)
SETS = ("D_A", "D_B", "D_M", "held-out", "shuffled", "update")
STEPS = {"θ_0": (0, 0), "θ_A": (0, 300), "θ_A+4": (1, 4), "θ_B": (1, 200)}


def _texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every text that is seen, with its box."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    found += figure.texts
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick, at in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True):
                for label in (tick.label1, tick.label2):
                    if label.get_visible() and low <= at <= high:
                        found.append(label)
    return [(text, text.get_window_extent()) for text in found if text.get_text().strip()]


def _check_texts(figure: Figure, least: int = 20) -> None:
    page = figure.bbox.padded(0.5)
    found = _texts(figure)
    assert len(found) > least
    for text, box in found:
        assert page.contains(*box.min), text.get_text()
        assert page.contains(*box.max), text.get_text()
    boxes = np.array([box.extents for _, box in found])
    sides = [
        np.minimum.outer(boxes[:, i + 2], boxes[:, i + 2])
        - np.maximum.outer(boxes[:, i], boxes[:, i])
        for i in (0, 1)
    ]
    common = np.prod(np.clip(sides, 0, None), axis=0)
    areas = common.diagonal()
    # Text boxes hold some air: what may touch is less than a tenth of the smaller one.
    touching = np.triu(common >= 0.1 * np.minimum.outer(areas, areas), k=1)
    names = [text.get_text() for text, _ in found]
    assert not [(names[i], names[j]) for i, j in np.argwhere(touching)]


@pytest.fixture(scope="session")
def check_texts() -> Callable[..., None]:
    """`(figure, least=20)` fails where a text is cut off or runs into another one."""
    return _check_texts


def _check_files(draw: Callable[[], Figure], rows: Sequence[Any], folder: Path) -> None:
    one, two = (save_figure(draw(), rows, folder / name, "toy") for name in ("one", "two"))
    assert [file.name for file in one] == ["toy.pdf", "toy.png", "toy.csv"]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    assert b"/Subtype /Type3" not in one[0].read_bytes()


@pytest.fixture(scope="session")
def check_files() -> Callable[..., None]:
    """`(draw, rows, folder)` fails unless what is drawn twice gives the same bytes."""
    return _check_files


def _angle_table(
    arms: int = 2,
    groups: Sequence[str] = ("all",),
    sets: Sequence[str] = SETS,
    moments: Sequence[str] = tuple(STEPS),
    undetermined: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Angles of random vectors; `undetermined` is the share of rows that say so of themselves."""
    rng = np.random.default_rng(seed)
    rows = []
    for arm, moment, group in itertools.product(ARMS[:arms], moments, groups):
        vectors = rng.normal(size=(len(sets), 8)) * np.exp(rng.normal(size=(len(sets), 1)))
        stage, step = STEPS[moment]
        norms = np.linalg.norm(vectors, axis=1).tolist()
        for i, j in itertools.combinations(range(len(sets)), 2):
            inner = float(vectors[i] @ vectors[j])
            cosine = inner / norms[i] / norms[j]
            rows.append(
                {
                    "arm": arm,
                    "stage": stage,
                    "step": step,
                    "moment": moment,
                    "reduction": "example",
                    "metric": "euclidean",
                    "group": group,
                    "place": group,
                    "first": sets[i],
                    "second": sets[j],
                    "cosine": cosine,
                    "half_width": float(rng.uniform(0.01, 0.3)),
                    "n": 10,
                    "angle_degrees": math.degrees(math.acos(cosine)),
                    "inner_product": inner,
                    "norm_first": norms[i],
                    "norm_second": norms[j],
                    "told": "undetermined" if rng.random() < undetermined else "",
                }
            )
    return rows


@pytest.fixture(scope="session")
def angle_table() -> Callable[..., list[dict[str, Any]]]:
    """`(arms, groups, sets, moments, undetermined, seed)` gives a tidy table."""
    return _angle_table
