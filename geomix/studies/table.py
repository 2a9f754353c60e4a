"""Table of runs side by side: the state of each, and its retention after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from geomix.config.names import order_of_set, set_name
from geomix.runs.directory import RunDirectory
from geomix.runs.retention import RetentionRow, retention_rows
from geomix.runs.state import state_text
from geomix.studies.sweep_file import member_names
from geomix.util.errors import UserError

NOT_BEGUN = "not begun"

_AFTER = "after stage "


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, or one for each arm.

    Attributes:
        name: of the run.
        state: of the run.
        rows: its retention.
        several: whether each arm gets a row.
    """

    name: str
    state: Text
    rows: Sequence[RetentionRow]
    several: bool


def is_sweep(folder: Path) -> bool:
    """Return whether a sweep wrote its runs into a folder."""
    return study_file(folder).is_file()


def study_file(folder: Path) -> Path:
    """Return the file in which a sweep keeps its study."""
    return folder / "_sweep" / "study.yaml"


def runs_of(folder: Path) -> list[RunDirectory]:
    """Return the runs of a sweep that have started, by name."""
    found = sorted(path for path in folder.iterdir() if RunDirectory(path).resolved_file.is_file())
    return [RunDirectory(path) for path in found]


def entries_of(folder: Path) -> list[Entry]:
    """Return each run of a sweep with state and retention, and the members not yet started."""
    runs = runs_of(folder)
    found = [Entry(run.name, state_text(run), known_rows(run), run.arms != [run]) for run in runs]
    begun = {run.name for run in runs}
    left = [name for name in member_names(study_file(folder)) if name not in begun]
    return [*found, *(Entry(name, Text(NOT_BEGUN), [], several=False) for name in left)]


def known_rows(run: RunDirectory) -> list[RetentionRow]:
    """Return the retention of a run; empty if it cannot be read."""
    try:
        return retention_rows(run) if run.resolved_file.is_file() else []
    except UserError:
        return []


def retention_columns(rows: Sequence[RetentionRow]) -> list[tuple[str, int]]:
    """Return the columns: each set after its own stage and after the last one.

    Args:
        rows: of all runs.
    """
    after = {(row.set, int(row.moment.removeprefix(_AFTER))) for row in rows if _ended(row)}
    last = max((number for _, number in after), default=0)
    own = {set_name(number - 1): number for number in range(1, last + 1)}
    kept = {(name, number) for name, number in after if number in (own.get(name), last)}
    return sorted(kept, key=lambda column: (order_of_set(column[0]), column[1]))


def _ended(row: RetentionRow) -> bool:
    return row.moment.startswith(_AFTER)


def sweep_table(entries: Sequence[Entry]) -> Table:
    """Build a table with a row per run or arm: its state, and each set's exact match in percent."""
    columns = retention_columns([row for entry in entries for row in entry.rows])
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("exact match, %", overflow="fold")
    table.add_column("state", overflow="fold")
    for name, number in columns:
        table.add_column(f"{name}\nafter {number}", justify="right", no_wrap=True)
    for entry in entries:
        scores = {(row.arm, row.set, row.moment): row.exact_match for row in entry.rows}
        for arm in dict.fromkeys(row.arm for row in entry.rows) or [""]:
            cells = [scores.get((arm, name, f"{_AFTER}{number}")) for name, number in columns]
            label = entry.name + f" {arm}" * entry.several
            texts = ("" if cell is None else f"{cell:.1f}" for cell in cells)
            table.add_row(Text(label), entry.state, *texts)
    return table
