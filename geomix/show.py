"""`geomix show`: what a run is, how far it came, what it remembers and what lies in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.config_data import is_file
from geomix.config_train import StopConfig, stop_text
from geomix.errors import UserError
from geomix.run import Run

Metric = Literal["exact_match", "alias_match", "token_f1", "rouge_l", "final_number"]
Column = Metric | Literal["loss"]

_STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}
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


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """A value that geomix would not have written there is one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: not as geomix writes it ({error!r})") from None


def retention_rows(run: Run) -> list[RetentionRow]:
    """Every set at the base model and at the end of each stage, arm by arm.

    A stage that has not ended shows its newest evaluation. A line that was written again, by a run
    that was resumed, counts once.

    Raises:
        UserError: a `metrics.jsonl` cannot be read.
    """
    found: list[RetentionRow] = []
    for arm in run.arms:
        with _reading(arm.metrics_file):
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
    sets = sorted({row.set for row in rows}, key=_place)
    columns: tuple[Column, ...] = (metric, "loss")
    parts = (columns,) if len(sets) <= _MOST_SETS else tuple((column,) for column in columns)
    return Group(*(_retention(rows, sets, part, len(run.arms) > 1) for part in parts))


def _place(name: str) -> tuple[int, str]:
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


def run_facts(run: Run) -> dict[str, Any]:
    """What `geomix show --json` prints: name, state, and every retention row with all metrics.

    Raises:
        UserError: a file of the run cannot be read.
    """
    status = run.status() if run.status_file.exists() else {"state": "not started"}
    rows = [asdict(row) for row in retention_rows(run)]
    return {"name": run.name, "path": str(run.path), "status": status, "retention": rows}


def show_run(run: Run, metric: Metric = "exact_match") -> RenderableType:
    """What a run is and how far it came, in at most 80 columns.

    Raises:
        UserError: the folder's `resolved.json` or `status.json` cannot be read, or no evaluation
            has the metric.
    """
    parts: list[RenderableType] = [_head(run)]
    for arm in run.arms:
        parts += ["", _arm(arm, run)]
    parts += ["", Text("Retention", style="bold"), retention_table(run, metric)]
    parts += ["", Text("Results", style="bold"), _files(run)]
    if run.status_file.exists() and run.status()["state"] in ("interrupted", "failed"):
        parts += ["", Text(f"next: geomix train --resume {run.path}", overflow="fold")]
    return Group(*parts)


def _head(run: Run) -> RenderableType:
    resolved = run.resolved()
    config = resolved["config"]
    title = Text(run.name, style="bold").append("  ").append_text(_state(run))
    with _reading(run.resolved_file):
        facts = f"model {config['model']} · seed {config['seed']} · hash {resolved['hash'][:12]}"
    return Group(title, Text(facts))


def _state(run: Run) -> Text:
    """`done`, `running in stage 1, step 40`, `failed: why`."""
    if not run.status_file.exists():
        return Text("not started")
    status = run.status()
    text = Text(status["state"], style=_STYLES.get(status["state"], ""))
    if "stage" in status:
        text.append(f" in stage {status['stage'] + 1}, step {status.get('step', 0)}")
    if "arm" in status:
        text.append(f" in arm {status['arm']}")
    if "why" in status:
        text.append(f": {status['why']}")
    return text


def _arm(arm: Run, run: Run) -> RenderableType:
    """One line a stage, and how many snapshots there are."""
    if not arm.resolved_file.exists():
        return Text.assemble((f"arm {arm.name}", "bold"), "  not started")
    lines: list[RenderableType] = []
    if arm != run:
        lines.append(Text(f"arm {arm.name}", style="bold").append("  ").append_text(_state(arm)))
    with _reading(arm.metrics_file):
        done = arm.steps_done()
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("stage", "data", "mix", "train"):
        table.add_column(name, overflow="fold")
    table.add_column("epochs", justify="right", overflow="fold")
    table.add_column("steps", justify="right", no_wrap=True)
    for index, stage in enumerate(arm.resolved()["config"]["stages"]):
        with _reading(arm.resolved_file):
            table.add_row(*_stage_cells(index, stage), str(done.get(index, 0)))
    if quirks := arm.resolved()["config"].get("paper_literal"):
        lines.append(Text(f"as the published code: {', '.join(quirks)}"))
    count = len(arm.snapshots())
    return Group(*lines, table, Text(f"{count} snapshot{'' if count == 1 else 's'}"))


def _stage_cells(index: int, stage: dict[str, Any]) -> list[Text]:
    """Stage, data, mix, training and epochs, from the resolved configuration."""
    data, mix, train = stage["data"], stage["mix"], stage["train"]
    split = [data["split"]] * (data["split"] != "train")
    facts = {"drop": ["unfamiliar"], "only": ["familiar"]}
    known = facts[data["familiar"]["facts"]] if data.get("familiar") else []
    which = ", ".join([*split, *known])
    added = []
    if mix and mix["ratio"]:
        mixed = f"{mix['source']} 1:{mix['ratio']:g}"
        mixed += "" if is_file(mix["source"]) else f", {mix['words']} words"
        added.append(mixed + ", passage-free" * mix["passage_free"])
    if stage.get("replay"):
        added.append(f"replay {stage['replay']['ratio']:g}")
    return [
        Text(f"{index + 1} {stage['name']}".strip()),
        Text(f"{data['limit']} {data['source']}" + f" ({which})" * bool(which)),
        Text("; ".join(added) or "–"),
        Text(f"lr {train['lr']:g}, batch {train['batch_size']}, {train['loss']} loss"),
        Text(stop_text(StopConfig.model_validate(stage["stop"]))),
    ]


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
