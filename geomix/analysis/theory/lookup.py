"""Numbers of the scorecard in the tables of other analyses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geomix.analysis.theory.sources import Row, Written, number

Floats = NDArray[np.float64]

ALONE = "beside a control, the control's steps would count as the mixing's"
"""Reason why mixed is not judged against plain."""


def pairs(written: Written) -> Iterator[tuple[str, str]]:
    """Yield the comparisons of delta2, each with the reason if it is not judged."""
    known = titles(written, "delta2")
    for title in known:
        yield title, ALONE if through(title, known) else ""


def titles(written: Written, analysis: str) -> list[str]:
    """Return the titles of an analysis's comparisons."""
    table, key = {"delta2": ("seeds", "comparison"), "forgetting": ("contrasts", "contrast")}[
        analysis
    ]
    found = dict.fromkeys(str(row[key]) for row in written.rows(analysis, table))
    return [title for title in found if " → " in title and not title.startswith("floor of ")]


def through(title: str, known: Sequence[str]) -> bool:
    """Return whether two other comparisons lead through a control from one arm to the other."""
    first, _, last = title.partition(" → ")
    ends = [other.partition(" → ")[::2] for other in known]
    return any((first, by) in ends and (by, last) in ends for _, by in ends)


def seeds_of(written: Written, comparison: str, quantity: str) -> Floats:
    """Return a number of a comparison, one per seed."""
    rows = written.rows("delta2", "seeds", comparison=comparison, quantity=quantity)
    return column(rows, "value")


def floor_of(written: Written, quantity: str) -> str:
    """Describe the range of the same number between trainings that differ only in their order."""
    rows = [
        row
        for row in written.rows("delta2", "seeds", quantity=quantity)
        if str(row["comparison"]).startswith("floor of ")
    ]
    values = column(rows, "value")
    return f"floor ±{float(np.max(np.abs(values))):.2g}" if len(values) else "no floor"


def column(rows: Sequence[Row], key: str) -> Floats:
    """Return a column, `(rows,)`; nan if a number is missing."""
    return np.array([number(row, key) for row in rows], dtype=np.float64)


def by(rows: Sequence[Row], key: str) -> list[tuple[str, list[Row]]]:
    """Group rows by the value of a column, in order of first occurrence."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    return list(found.items())
