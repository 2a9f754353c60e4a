"""Default saving and printing of any analysis's tables, findings and figures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from geomix.analysis.answer import WIDTH, file_map, fitted
from geomix.analysis.findings import Drawn, Finding
from geomix.runs.directory import RunDirectory
from geomix.util.console import Console
from geomix.util.errors import UserError
from geomix.util.files import write_json, written_file
from geomix.util.reading import read_json

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def save(
    run: RunDirectory,
    stem: str,
    facts: Mapping[str, Any],
    tables: Tables,
    figures: Iterable[Drawn],
    printed: RenderableType,
    log: Callable[[str], object],
) -> list[Path]:
    """Write facts (JSON), tables (CSV), report and figures; remove an earlier call's files.

    Args:
        run: whose folders receive them.
        stem: common start of the files' names.
        facts: the whole result, as JSON can hold it.
        tables: tidy, by the suffix of their names.
        figures: with the tables behind them.
        printed: the report.
        log: receives a line if another process is saving.
    """
    from geomix.figures.style import save_figure

    main = run.analysis_folder / f"{stem}.json"
    with run.saving(log):
        before = _written_before(main)
        files = [main]
        for ending, rows in tables.items():
            files.append(_table(run.analysis_folder / f"{stem}{_joined(ending)}.csv", rows))
        for ending, figure, rows, caption in (Drawn(*found) for found in figures):
            name = stem + _joined(ending)
            files += save_figure(figure, rows, run.figure_folder, name, caption)
        text = run.analysis_folder / f"{stem}.txt"
        with written_file(text) as partial, partial.open("w", encoding="utf-8") as file:
            Console(file=file, width=WIDTH).print(printed)
        files.append(text)
        names = sorted(f"{file.parent.name}/{file.name}" for file in files)
        write_json(main, {**facts, "files": names})
        for name in before.difference(names):
            (run.path / name).unlink(missing_ok=True)
    return files


def _joined(ending: str) -> str:
    return f"_{ending}" if ending else ""


def _written_before(main: Path) -> set[str]:
    """Return the files listed in an earlier call's JSON; only names that such a call can write."""
    try:
        listed = read_json(main).get("files", []) if main.is_file() else []
    except UserError:
        return set()
    stem = main.stem
    parts = [str(name).split("/") for name in listed if isinstance(name, str)]
    return {
        f"{folder}/{name}"
        for folder, name in (part for part in parts if len(part) == 2)  # noqa: PLR2004
        if folder in ("analysis", "figures") and name.startswith(stem)
    }


def _table(path: Path, rows: Sequence[Row]) -> Path:
    with written_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*rows[0]] if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def answer(
    findings: Sequence[Finding], run: RunDirectory, stem: str, files: Sequence[Path]
) -> list[str]:
    """Return each finding, then a map of the files, in at most 25 lines."""
    found = [line for finding in findings for line in finding.lines()]
    return fitted(found, file_map(run, files, stem, {"analysis/.txt": "all tables"}))


def report(findings: Sequence[Finding], tables: Tables) -> RenderableType:
    """Render findings and every table."""
    parts: list[RenderableType] = []
    for finding in findings:
        parts += finding.lines()
    for ending, rows in tables.items():
        table = Table(box=None, padding=(0, 1, 0, 0), title=ending or None)
        for column in rows[0] if rows else ():
            table.add_column(str(column), overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row.values()))
        parts.append(table)
    return Group(*parts)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
