"""`geomix show`: a run's description, state, retention and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.cli.show_history import history_parts, read_history
from geomix.cli.show_stages import stage_table
from geomix.config.names import order_of_set, set_name
from geomix.measures.scores import score_named
from geomix.runs.directory import RunDirectory
from geomix.runs.retention import RetentionRow, asked_scores, retention_rows
from geomix.runs.state import state_text
from geomix.util.errors import UserError
from geomix.util.reading import as_written

_HALF = 50
"""Percent of a stage's facts that must be known before their forgetting is meaningful."""

_WIDTH = 80
"""Width of the retention table, in characters."""


def retention_table(
    run: RunDirectory, metric: str | None = None, *, whole: bool = True
) -> RenderableType:
    """Build the retention table: arm and checkpoint down, the sets across.

    Args:
        run: with or without arms.
        metric: a score, shown beside the loss; None shows the exact match and those that the run's
            configuration names.
        whole: False leaves out the scores that do not fit beside the first ones.

    Raises:
        UserError: no evaluation of the run has the metric.
    """
    rows = retention_rows(run)
    if not rows:
        return Text("no evaluation yet")
    if metric is not None and all(metric not in row.scores for row in rows):
        only = score_named(metric).lacking
        because = f"; {only}" if only else ""
        raise UserError(f"{run.path}: no evaluation of this run has {metric}{because}")
    sets = sorted({row.set for row in rows}, key=order_of_set)
    named = [metric] if metric else ["exact_match", *asked_scores(run)]
    parts = _fitting(rows, list(dict.fromkeys([*named, "loss"])))
    shown = parts if whole else parts[:1]
    return Group(*(_retention(rows, sets, part, len(run.arms) > 1) for part in shown))


def _fitting(rows: Sequence[RetentionRow], columns: Sequence[str]) -> list[list[str]]:
    """Split the scores into as few tables as fit the width, each with all sets."""
    parts: list[list[str]] = [[]]
    left = room = _WIDTH - max(len(row.moment) + 1 for row in rows)
    for column in columns:
        heading = len(score_named(column).heading)
        widths: dict[str, int] = {}
        for row in rows:
            least = max(heading, len(row.set), len(_cell(row, column))) + 1
            widths[row.set] = max(widths.get(row.set, 0), least)
        needed = sum(widths.values())
        if parts[-1] and needed > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= needed
    return parts


def not_learnt(run: RunDirectory) -> list[str]:
    """Return a line per stage but the last that ended with less than half of its facts known."""
    rows = retention_rows(run)
    lines = []
    for stage in range(len(run.resolved()["config"]["stages"]) - 1):
        own, after = set_name(stage), f"after stage {stage + 1}"
        known = {
            row.arm: row.exact_match
            for row in rows
            if (row.set, row.moment) == (own, after) and row.exact_match < _HALF
        }
        if known:
            named = f" in {', '.join(known)}" * (run.arms != [run])
            exact = f"{min(known.values()):.0f} % exact" + ", the least" * (len(known) > 1)
            advice = "train longer before reading its forgetting"
            lines.append(f"{own} was not learnt{named} ({exact}): {advice}")
    return lines


def _retention(
    rows: Sequence[RetentionRow], sets: Sequence[str], columns: Sequence[str], several: bool
) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for name in sets:
        for column in columns:
            heading = score_named(column).heading
            table.add_column(f"{name}\n{heading}", justify="right", no_wrap=True)
    values = {(row.arm, row.moment, row.set): row for row in rows}
    before = None
    for arm, moment in dict.fromkeys((row.arm, row.moment) for row in rows):
        if several and arm != before:
            table.add_row(Text(arm, style="bold"))
        before = arm
        cells = [
            _cell(values.get((arm, moment, name)), column) for name in sets for column in columns
        ]
        table.add_row(Text(moment), *cells)
    return table


def _cell(row: RetentionRow | None, column: str) -> str:
    """Format a number of the table; empty if the set was not scored, a dash if it has none."""
    if row is None:
        return ""
    value = row.scores.get(column)
    return "–" if value is None else score_named(column).text(value)


def retention_csv(runs: Sequence[RunDirectory]) -> str:
    """Return the retention rows as CSV, tidy: a line for each run, arm, checkpoint, set and metric.

    Columns: run, arm, seed, checkpoint (`θ_0`, `after stage 1`, …), set, n (examples), metric (the
    name of a score) and value.

    Raises:
        UserError: a file of a run cannot be read.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", "arm", "seed", "checkpoint", "set", "n", "metric", "value"])
    for run in runs:
        seed = run.resolved()["config"]["seed"]
        for row in retention_rows(run):
            where = [run.name, row.arm, seed, row.moment, row.set, row.n]
            table.writerows([*where, name, value] for name, value in row.scores.items())
    return text.getvalue()


def run_facts(run: RunDirectory) -> dict[str, Any]:
    """Return the contents of `geomix show --json`: name, state, retention, transfer, histories.

    Raises:
        UserError: a file of the run cannot be read.
    """
    status = run.status() if run.status_file.exists() else {"state": "not started"}
    rows = [row.facts() for row in retention_rows(run)]
    transfers, histories = read_history(run)
    return {
        "name": run.name,
        "path": str(run.path),
        "status": status,
        "retention": rows,
        "transfer": [asdict(transfer) for transfer in transfers],
        "forgetting": [asdict(history) for history in histories],
    }


def show_run(run: RunDirectory, metric: str | None = None) -> RenderableType:
    """Describe a run and its state in at most 80 columns.

    Raises:
        UserError: the folder's `resolved.json` or `status.json` cannot be read, or no evaluation
            has the metric.
    """
    parts: list[RenderableType] = [_head(run), ""]
    parts += [Text("Retention matrix", style="bold"), retention_table(run, metric)]
    parts += [Text(line, style="yellow") for line in not_learnt(run)]
    parts += history_parts(run)
    parts += ["", Text("Stages", style="bold"), stage_table(run)]
    parts += ["", Text("Results", style="bold"), _files(run)]
    if run.status_file.exists() and run.status()["state"] in ("interrupted", "failed"):
        parts += ["", Text(f"next: geomix train --resume {run.path}", overflow="fold")]
    return Group(*parts)


def _head(run: RunDirectory) -> RenderableType:
    resolved = run.resolved()
    config = resolved["config"]
    title = Text(run.name, style="bold").append("  ").append_text(state_text(run))
    with as_written(run.resolved_file):
        facts = f"model {config['model']} · seed {config['seed']} · hash {resolved['hash'][:12]}"
    return Group(title, Text(facts))


def _results(run: RunDirectory) -> Iterable[Path]:
    """Yield the finished results of the run and of its arms."""
    for owner in dict.fromkeys((run, *run.arms)):
        for folder in (owner.analysis_folder, owner.figure_folder):
            yield from sorted(p for p in folder.glob("*") if p.is_file() and p.suffix != ".partial")


def _files(run: RunDirectory) -> RenderableType:
    names = [str(path.relative_to(run.path)) for path in _results(run)]
    if not names:
        return Text("no analysis yet; `geomix analyze grad-angle` makes the first")
    return Text("\n".join(names), overflow="fold")
