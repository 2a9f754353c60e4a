"""Parts of `geomix show` on a run's state, stages and arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.config.names import set_name
from geomix.config.source_names import is_own
from geomix.config.training import StopConfig, TrainConfig, stop_text
from geomix.runs.directory import RunDirectory
from geomix.runs.state import state_text
from geomix.util.reading import as_written, read_json

HELD_OUT = "held-out"

Row = tuple[str, ...]
"""Stage, data, mix, training, epochs and steps done."""


def stage_table(run: RunDirectory) -> RenderableType:
    """Build a table with one line a stage, and the snapshot count; rows common to all arms once.

    Raises:
        UserError: a file of the run cannot be read.
    """
    if run.arms == [run]:
        return Group(*_quirks(run), _table(_rows(run)), Text(_snapshots(run)))
    rows = {arm.name: _rows(arm) for arm in run.arms if arm.resolved_file.exists()}
    each = [set(found) for found in rows.values()]
    shared = set.intersection(*each) if len(each) > 1 else set()
    parts: list[RenderableType] = []
    if shared:
        common = [row for row in next(iter(rows.values())) if row in shared]
        whose = "all arms" if len(rows) == len(run.arms) else "arms so far"
        parts += [Text(whose, style="bold"), _table(common)]
    for arm in run.arms:
        head = Text(f"arm {arm.name}", style="bold")
        if arm.name not in rows:
            parts.append(head.append("  not started", style="not bold"))
            continue
        own = [row for row in rows[arm.name] if row not in shared]
        parts += [head.append("  ").append_text(state_text(arm)).append(f", {_snapshots(arm)}")]
        parts += [*_quirks(arm), *([_table(own)] if own else [])]
    return Group(*parts)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("stage", "data", "mix", "train"):
        table.add_column(name, overflow="fold")
    table.add_column("epochs", justify="right", overflow="fold")
    table.add_column("steps", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _rows(arm: RunDirectory) -> list[Row]:
    with as_written(arm.metrics_file):
        done = arm.steps_done()
    with as_written(arm.resolved_file):
        return [
            (*_stage_cells(arm, index, stage), str(done.get(index, 0)))
            for index, stage in enumerate(arm.resolved()["config"]["stages"])
        ]


def _quirks(arm: RunDirectory) -> list[Text]:
    quirks = arm.resolved()["config"].get("paper_literal")
    return [Text(f"as the published code: {', '.join(quirks)}")] if quirks else []


def _snapshots(arm: RunDirectory) -> str:
    count = len(arm.snapshots())
    return f"{count} snapshot{'' if count == 1 else 's'}"


def _count(arm: RunDirectory, index: int) -> str:
    """Return the number of a file's examples: `54 of 60`, with those held out, as far as known."""
    file = next(iter(arm.path.glob(f"stages/{index}-*/data.json")), None)
    found = read_json(file).get("sets", {}).get(set_name(index), {}) if file else {}
    if not isinstance(n := found.get("examples"), int):
        return "all"
    probes = read_json(arm.probes_file) if index == 0 and arm.probes_file.is_file() else {}
    held_out = probes.get(HELD_OUT, {}).get("of")
    return f"{n} of {n + held_out}" if isinstance(held_out, int) else str(n)


def _stage_cells(arm: RunDirectory, index: int, stage: dict[str, Any]) -> Row:
    """Return stage, data, mix, training and epochs, from the resolved configuration."""
    data, mix, train = stage["data"], stage["mix"], stage["train"]
    split = [data["split"]] * (data["split"] != "train")
    facts = {"drop": ["unfamiliar"], "only": ["familiar"]}
    known = facts[data["familiar"]["facts"]] if data.get("familiar") else []
    which = ", ".join([*split, *known])
    mixes = mix if isinstance(mix, list) else [mix] * bool(mix)
    added = [_mix(one) for one in mixes if one["ratio"]]
    if stage.get("replay"):
        added.append(f"replay {stage['replay']['ratio']:g}")
    return (
        f"{index + 1} {stage['name']}".strip(),
        f"{data['limit'] or _count(arm, index)} {data['source']}" + f" ({which})" * bool(which),
        "; ".join(added) or "–",
        f"from {stage['from']}" if stage.get("from") else _training(train),
        stop_text(StopConfig.model_validate(stage["stop"])),
    )


def _mix(mix: Mapping[str, Any]) -> str:
    """Source, ratio and what else there is to say of a mix."""
    text = f"{mix['source']} 1:{mix['ratio']:g}"
    text += "" if is_own(mix["source"]) else f", {mix['words']} words"
    return text + (", passage-free" if mix["passage_free"] else "")


def _training(train: Mapping[str, Any]) -> str:
    """Return rate, batch and loss, and settings that differ from the defaults."""
    usual = TrainConfig()
    parts = [f"lr {train['lr']:g}, batch {train['batch_size']}, {train['loss']} loss"]
    parts += [str(train[key]) for key in ("precision", "schedule") if _unusual(train, key, usual)]
    if _unusual(train, "schedule_over", usual):
        parts.append("one schedule")
    if _unusual(train, "trainable", usual):
        parts.append(" ".join(train["trainable"]))
    if train.get("lora"):
        parts.append(f"LoRA rank {train['lora']['rank']}")
    return ", ".join(parts)


def _unusual(train: Mapping[str, Any], key: str, usual: TrainConfig) -> bool:
    default = getattr(usual, key)
    return bool(train.get(key, default) != default)
