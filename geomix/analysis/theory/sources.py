"""Files of `forgetting`, `delta2` and `curvature`, from which the scorecard is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomix.analysis.replicates import suffix_of
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.reading import all_of, expect, read_json

Row = Mapping[str, Any]

NAMES = {"forgetting": r"forgetting_stage(\d+)", "delta2": "delta2", "curvature": "curvature"}
"""Analyses to read, and patterns of their files' names."""


@dataclass(frozen=True, slots=True)
class Written:
    """Tables of the analyses, by analysis and suffix of the table's name ("" is the main one).

    Attributes:
        tables: rows, one per seed or finer.
        missing: analyses without files.
    """

    tables: Mapping[tuple[str, str], Sequence[Row]]
    missing: tuple[str, ...]

    def rows(self, analysis: str, ending: str = "", **where: object) -> list[Row]:
        """Return the rows of a table that have all these values."""
        found = self.tables.get((analysis, ending), ())
        return [row for row in found if all(row.get(k) == v for k, v in where.items())]


def read(runs: Sequence[RunDirectory]) -> Written:
    """Read an analysis of all runs together, else of each run alone.

    Raises:
        UserError: there is no analysis, one exists for some runs only, or a file is damaged.
    """
    tables: dict[tuple[str, str], list[Row]] = {}
    missing = []
    for analysis, begins in NAMES.items():
        files = _files(runs, analysis, begins)
        if not files:
            missing.append(analysis)
        for file in files:
            for ending, rows in _tables(file, analysis).items():
                tables.setdefault((analysis, ending), []).extend(rows)
    if len(missing) == len(NAMES):
        folders = " ".join(str(run.path) for run in runs)
        raise UserError(
            f"{runs[0].path}: no analysis to score; run first: geomix analyze forgetting {folders}"
        )
    return Written(tables, tuple(missing))


def _files(runs: Sequence[RunDirectory], analysis: str, begins: str) -> list[Path]:
    shared = _file(runs[0], begins, suffix_of([str(run.path) for run in runs]))
    if shared is not None:
        return [shared]
    alone = {run: _file(run, begins, "") for run in runs}
    lacking = [run for run, file in alone.items() if file is None]
    if lacking and len(lacking) < len(runs):
        raise UserError(
            f"{lacking[0].path}: no {analysis}, which other runs have; run it there too"
        )
    return [file for file in alone.values() if file is not None]


def _file(run: RunDirectory, begins: str, ending: str) -> Path | None:
    """Return the JSON file of an analysis; of several stages the last one's."""
    pattern = re.compile(begins + re.escape(ending) + r"\.json")
    found = [file for file in run.analysis_folder.glob("*.json") if pattern.fullmatch(file.name)]
    return max(found, key=lambda file: (len(file.name), file.name), default=None)


def _tables(file: Path, analysis: str) -> dict[str, list[Row]]:
    known = read_json(file)
    tables: Any = known.get("tables")
    expect(file, "tables, an object", isinstance(tables, dict))
    found: dict[str, list[Row]] = {}
    for name, rows in tables.items():
        expect(file, f"tables.{name}, a list of objects", all_of(rows, dict))
        found["" if name == analysis else name] = rows
    return found


def number(row: Row, key: str) -> float:
    """Return a number of a row; nan if it is missing, since JSON has no nan."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else float("nan")
