"""Display of a sweep: lines and a live table while it runs, one table at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from geomix.runs.directory import RunDirectory
from geomix.runs.retention import RetentionRow, retention_rows
from geomix.studies.member import Member, Outcome, State, last_line
from geomix.studies.table import NOT_BEGUN, Entry, known_rows, sweep_table
from geomix.util.console import Console, Live
from geomix.util.errors import UserError

_STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}
_MOST_LIVE = 12
"""Most rows of the live table; more would not fit the screen."""


class Board:
    """Display of the members' progress: a permanent line each, a live table on a terminal.

    Args:
        console: of the output.
        members: all of them.
    """

    def __init__(self, console: Console, members: Sequence[Member]) -> None:
        self._console = console
        self._members = {member.name: member for member in members}
        self._ended: Counter[State] = Counter()
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, members: Sequence[Member]) -> None:
        """Print a line for each member that starts."""
        for member in members:
            self._log(f"{member.name}: {'goes on' if member.begun else 'begins'}")

    def ended(self, member: Member, result: Outcome) -> None:
        """Print a line on how a member ended, and on each set's score."""
        self._ended[result.state] += 1
        why = f" ({result.why})" if result.state == "done" and result.why else f": {result.why}"
        line = f"{member.name}: {result.state}" + why * bool(result.why)
        if result.state == "done":
            rows = _last_rows(member)
            several = len(member.experiment.arms) > 1
            labels = [f"{row.arm} " * several + row.set for row in rows]
            scores = zip(labels, rows, strict=True)
            line += "".join(f"  {label} {row.exact_match:.1f} %" for label, row in scores)
        self._log(f"{line}  [{self._ended.total()}/{len(self._members)}]")

    def update(self, running: Mapping[str, State], left: int) -> None:
        """Redraw the live table; without a terminal there is none."""
        if not self._console.is_terminal:
            return
        counts = Counter(running.values())
        line = f"{self._ended['done']} done, {counts['running']} running, "
        line += f"{counts['queued']} queued, " * bool(counts["queued"])
        line += f"{self._ended['failed']} failed, {left} left"
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
        shown = [name for name, state in running.items() if state == "running"][:_MOST_LIVE]
        for name in shown:
            if name in self._members:
                table.add_row(Text(name, overflow="fold"), Text(_place(self._members[name])))
        self._live.update(Group(table, Text(line)), refresh=True)

    def _log(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def _place(member: Member) -> str:
    """Return the position of a running member, from the last line of its metrics."""
    run = member.run
    try:
        arm = run.status().get("arm") if member.begun else None
        metrics = (RunDirectory(run.path / "arms" / arm) if arm else run).metrics_file
        line = json.loads(last_line(metrics))
        return f"{arm}: " * bool(arm) + f"stage {line['stage'] + 1}, step {line['step']}"
    except (UserError, ValueError, LookupError, TypeError):  # not there yet, or half a line
        return ""


def _last_rows(member: Member) -> list[RetentionRow]:
    """Return every set's retention after the last stage, arm by arm; none if unknown."""
    after = {
        name: f"after stage {len(config.stages)}" for name, config in member.experiment.arms.items()
    }
    try:
        rows = retention_rows(member.run)
    except UserError:
        return []
    return [row for row in rows if row.moment == after.get(row.arm, after.get(""))]


def results_table(members: Sequence[Member], results: Mapping[str, Outcome]) -> Table:
    """Build the results table: a row per member or arm, with its state and exact match in percent.

    Args:
        members: in the order of the rows.
        results: state of each, by name.
    """
    return sweep_table(
        [
            Entry(
                member.name,
                _state(results[member.name].state),
                known_rows(member.run),
                len(member.experiment.arms) > 1,
            )
            for member in members
        ]
    )


def _state(state: State) -> Text:
    return Text(NOT_BEGUN if state == "left" else state, style=_STYLES.get(state, ""))


def facts(members: Sequence[Member], results: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return each member's facts for `geomix sweep --json`: everything in the table, all metrics.

    Args:
        members: in order.
        results: state of each, by name.
    """
    return [
        {
            "member": member.name,
            "state": results[member.name].state,
            "why": results[member.name].why,
            "path": str(member.run.path),
            "config": str(member.config_file),
            "overrides": member.overrides,
            "retention": [row.facts() for row in _last_rows(member)],
        }
        for member in members
    ]
