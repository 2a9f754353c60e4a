"""Figures drawn from one tidy table, such as the CSV beside each of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from geomix.figures.labels import Row
from geomix.util.errors import UserError


@dataclass(frozen=True, slots=True)
class TableFigure:
    """Figure that a table's rows determine.

    Attributes:
        summary: one sentence.
        columns: the required columns.
        draw: from rows to the figure.
        draw_pair: likewise, of the two sets that are given; None where no pair is to be chosen.
    """

    summary: str
    columns: tuple[str, ...]
    draw: Callable[[Sequence[Row]], Figure]
    draw_pair: Callable[[Sequence[Row], tuple[str, str]], Figure] | None = None


def checkpoints_of(rows: Sequence[Row]) -> list[str]:
    """Return the checkpoints of a table in the order of training, else in the table's.

    Arms with different numbers of steps have different checkpoints: the table has those that its
    first arm lacks behind that arm's last.
    """
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        at = (int(row.get("stage", 0)), int(row.get("step", 0)))
        found[str(row["moment"])] = max(at, found.get(str(row["moment"]), at))
    return sorted(found, key=lambda label: found[label])


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read the rows of a CSV with their types restored: numbers are numbers, "" is nan.

    Args:
        path: of the table.
        columns: required ones. A column whose values are all numbers or empty holds numbers.

    Raises:
        UserError: it cannot be read, has no rows, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    if not rows:
        raise UserError(f"{path}: no rows")
    if lacking := [name for name in columns if name not in rows[0]]:
        there = ", ".join(map(str, rows[0]))
        raise UserError(f"{path}: no column {', '.join(lacking)}; there are: {there}")
    kinds = {name: _kind(name, [row[name] for row in rows]) for name in rows[0]}
    return [{name: kinds[name](row[name]) for name in row if name in kinds} for row in rows]


_TEXTS = ("told",)
"""Columns of texts that may all be empty."""


def _kind(name: str, values: Sequence[str | None]) -> Callable[[str | None], Any]:
    """Return the converter of a column's texts."""
    for kind in (int, float):
        try:
            for value in values:
                kind(value or "0")
        except ValueError:
            continue
        if kind is int and all(values):
            return lambda text: int(text or 0)
        if name not in _TEXTS:
            return lambda text: float(text) if text else float("nan")
    return lambda text: text or ""
