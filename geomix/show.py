"""`geomix show`: what a run is, how far it came, what it remembers and what lies in its folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.errors import UserError
from geomix.run import Run
from geomix.show_history import history_parts, read_history
from geomix.show_stages import reading, stage_table, state_text

Metric = Literal["exact_match", "alias_match", "token_f1", "rouge_l", "final_number"]
Column = Metric | Literal["loss"]

METRICS: dict[Metric, str] = {
    "exact_match": "exact %",
    "alias_match": "alias %",
    "token_f1": "F1 %",
    "rouge_l": "ROUGE-L",
    "final_number": "number %",
}
"""What the retention table can show, and the heading of its column; all 0 to 100."""

_MOST_SETS = 4
"""More sets than this do not fit 80 columns with two numbers each."""


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """How well one set is known at one moment of one arm.

    Attributes:
        arm: its name.
        moment: `θ_0`, `after stage 1`, `after stage 2`, …; `stage 2, step 40` where a stage has not
            ended.
        set: `D_A`, `D_B`, …
        n: examples scored.
        exact_match: percent, as is what follows the loss.
        loss: nats, mean in the run's reduction.
        alias_match: of any accepted answer.
        token_f1: overlap in words.
        rouge_l: longest common subsequence.
        final_number: None where no target has one.

    All but `exact_match` are None in a run that was made before they were measured.
    """

    arm: str
    moment: str
    set: str
    n: int
    exact_match: float
    loss: float
    alias_match: float | None = None
    token_f1: float | None = None
    rouge_l: float | None = None
    final_number: float | None = None

    def value(self, metric: Metric) -> float | None:
        """The number that a metric's name stands for."""
        found: float | None = getattr(self, metric)
        return found


def retention_rows(run: Run) -> list[RetentionRow]:
    """Every set at the base model and at the end of each stage, arm by arm.

    A stage that has not ended shows its newest evaluation. A line that was written again, by a run
    that was resumed, counts once.

    Raises:
        UserError: a `metrics.jsonl` cannot be read.
    """
    found: list[RetentionRow] = []
    for arm in run.arms:
        with reading(arm.metrics_file):
            found += _arm_rows(arm)
    return found


def _arm_rows(arm: Run) -> list[RetentionRow]:
    lines = [line for line in arm.metrics() if line["event"] == "evaluation"]
    ended = {line["stage"] for line in lines if line["moment"] == "end"}
    newest = {line["stage"]: line["step"] for line in lines}
    found: dict[tuple[str, str], RetentionRow] = {}
    for line in lines:
        stage, step = line["stage"], line["step"]
        boundary = {"start": "θ_0", "end": f"after stage {stage + 1}"}.get(line["moment"])
        if boundary is None and (stage in ended or step < newest[stage]):
            continue
        label = boundary or f"stage {stage + 1}, step {step}"
        scores = {name: float(line[name]) for name in METRICS if line.get(name) is not None}
        found[label, line["set"]] = RetentionRow(
            arm.name, label, line["set"], int(line["n"]), loss=float(line["loss"]), **scores
        )
    return list(found.values())


def retention_table(run: Run, metric: Metric = "exact_match") -> RenderableType:
    """The retention rows: arm and moment down, the sets across.

    Raises:
        UserError: no evaluation of the run has the metric.
    """
    rows = retention_rows(run)
    if not rows:
        return Text("no evaluation yet")
    if all(row.value(metric) is None for row in rows):
        only = "; only targets with '#### number' have one" if metric == "final_number" else ""
        raise UserError(f"{run.path}: no evaluation of this run has {metric}{only}")
    sets = sorted({row.set for row in rows}, key=place_of_set)
    columns: tuple[Column, ...] = (metric, "loss")
    parts = (columns,) if len(sets) <= _MOST_SETS else tuple((column,) for column in columns)
    return Group(*(_retention(rows, sets, part, len(run.arms) > 1) for part in parts))


def place_of_set(name: str) -> tuple[int, str]:
    """Stages' own sets first, then those of `evaluate.sets`, what was mixed in, held-out."""
    if name == "held-out":
        return (3, name)
    return (2 if name.startswith("D_M") else 0 if name.startswith("D_") else 1, name)


def _retention(
    rows: Sequence[RetentionRow], sets: Sequence[str], columns: Sequence[Column], several: bool
) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for name in sets:
        for column in columns:
            heading = "loss" if column == "loss" else METRICS[column]
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


def _cell(row: RetentionRow | None, column: Column) -> str:
    """A number of the table; empty where the set was not scored, a dash where it has none."""
    if row is None:
        return ""
    if column == "loss":
        return f"{row.loss:.4g}"
    value = row.value(column)
    return "–" if value is None else f"{value:.1f}"


def retention_csv(runs: Sequence[Run]) -> str:
    """The retention rows as CSV, tidy: a line for each run, arm, checkpoint, set and metric.

    Columns: run, arm, seed, checkpoint (`θ_0`, `after stage 1`, …), set, n (examples), metric (the
    names of `METRICS`, 0 to 100, or `loss`, nats) and value.

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
            found = {metric: row.value(metric) for metric in METRICS} | {"loss": row.loss}
            table.writerows([*where, k, v] for k, v in found.items() if v is not None)
    return text.getvalue()


def run_facts(run: Run) -> dict[str, Any]:
    """What `geomix show --json` prints: name, state, every retention row, transfer and histories.

    Raises:
        UserError: a file of the run cannot be read.
    """
    status = run.status() if run.status_file.exists() else {"state": "not started"}
    rows = [asdict(row) for row in retention_rows(run)]
    transfers, histories = read_history(run)
    return {
        "name": run.name,
        "path": str(run.path),
        "status": status,
        "retention": rows,
        "transfer": [asdict(transfer) for transfer in transfers],
        "forgetting": [asdict(history) for history in histories],
    }


def show_run(run: Run, metric: Metric = "exact_match") -> RenderableType:
    """What a run is and how far it came, in at most 80 columns.

    Raises:
        UserError: the folder's `resolved.json` or `status.json` cannot be read, or no evaluation
            has the metric.
    """
    parts: list[RenderableType] = [_head(run), "", stage_table(run)]
    parts += ["", Text("Retention matrix", style="bold"), retention_table(run, metric)]
    parts += history_parts(run)
    parts += ["", Text("Results", style="bold"), _files(run)]
    if run.status_file.exists() and run.status()["state"] in ("interrupted", "failed"):
        parts += ["", Text(f"next: geomix train --resume {run.path}", overflow="fold")]
    return Group(*parts)


def _head(run: Run) -> RenderableType:
    resolved = run.resolved()
    config = resolved["config"]
    title = Text(run.name, style="bold").append("  ").append_text(state_text(run))
    with reading(run.resolved_file):
        facts = f"model {config['model']} · seed {config['seed']} · hash {resolved['hash'][:12]}"
    return Group(title, Text(facts))


def _results(run: Run) -> Iterable[Path]:
    """Finished results of the run and of its arms."""
    for owner in dict.fromkeys((run, *run.arms)):
        for folder in (owner.analysis_folder, owner.figure_folder):
            yield from sorted(p for p in folder.glob("*") if p.is_file() and p.suffix != ".partial")


def _files(run: Run) -> RenderableType:
    names = [str(path.relative_to(run.path)) for path in _results(run)]
    if not names:
        return Text("no analysis yet; `geomix analyze grad-angle` makes the first")
    return Text("\n".join(names), overflow="fold")
