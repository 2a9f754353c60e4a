"""The cost of an experiment in a dry run: a table, a line of totals, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from geomix.config.load import Experiment
from geomix.data.example import Example
from geomix.data.plan import StagePlan, planned_steps
from geomix.models.meta import stand_in_shape
from geomix.planning.disk import disk_of
from geomix.planning.estimate import Arm
from geomix.planning.node import of_snapshot, of_step
from geomix.planning.record_cost import record_cost
from geomix.util.terminal import plain_table

UNKNOWN = "unknown"

_STEP = 1024

_NOTES = (
    "tokens: rows × width of the largest forward pass; kept: its activations.",
    "step, record: most memory in a training step, in a snapshot; all included.",
)
_LINKED = "A stage that is taken from another run is linked: its checkpoint counts as 0 B."


def cost_of(
    experiment: Experiment,
    planned: Mapping[
        str, tuple[Sequence[StagePlan], Mapping[str, list[Example]], Mapping[str, list[Example]]]
    ],
    processes: int = 1,
) -> dict[str, Any]:
    """Return padding, memory and disk of every stage, in bytes; null where unknown.

    Args:
        experiment: the configuration.
        planned: of each arm its stages, its probe sets and its additional evaluated sets.
        processes: number of processes that train together; the memory is that of each.

    Raises:
        UserError: a model that is here cannot be used.
    """
    arms = {
        name: _arm_cost(Arm(config, *planned[name]), processes)
        for name, config in experiment.arms.items()
    }
    highest = [stage["memory"] for arm in arms.values() for stage in arm["stages"]]
    highest += [arm["snapshot_memory"] for arm in arms.values()]
    written = [stage["disk"] for arm in arms.values() for stage in arm["stages"]]
    kept = [_kept(disk) for disk in written]
    within = [disk["within"] for disk in written]
    return {
        "arms": arms,
        "processes": processes,
        "memory": max((m for m in highest if m is not None), default=None),
        "disk": None if None in kept else sum(kept),
        "disk_within": None if None in within else max(within),
    }


def _arm_cost(arm: Arm, processes: int) -> dict[str, Any]:
    """Return one arm's cost: its model, and each stage."""
    stages = []
    for index in range(len(arm.plans)):
        reused, size = arm.config.stages[index].from_ is not None, arm.size(index)
        stages.append(
            {
                "stage": arm.config.stage_name(index),
                "taken": reused,
                "checkpointing": arm.config.stages[index].train.gradient_checkpointing,
                **(_STILL if reused else _training(arm, index, processes)),
                "size": size and asdict(size),
                "disk": asdict(disk_of(arm, index)),
            }
        )
    base, recorded = arm.base, record_cost(arm)
    return {
        "model": arm.config.model,
        "sizes_of": stand_in_shape(arm.config.model),
        "tokenizer": "its own" if base.own_tokenizer else "builtin",
        "snapshot_memory": of_snapshot(arm, processes),
        "record": recorded and asdict(recorded),
        "stages": stages,
    }


def _training(arm: Arm, index: int, processes: int) -> dict[str, Any]:
    """Return the cost of a stage's steps."""
    packing = arm.packing(index, processes)
    steps = planned_steps(arm.config.stages[index], arm.plans[index])
    parts = arm.memory_parts(index, packing)
    return {
        "padding": packing.padding if arm.base.own_tokenizer else None,
        "batches_looked_at": packing.packed,
        "batches": packing.batches,
        "tokens": round(packing.tokens * steps / max(packing.packed, 1)),
        "micro_batch": {**asdict(packing.micro), "passes": packing.passes},
        "memory": of_step(arm, index, packing, processes),
        "memory_of": parts and asdict(parts),
    }


_STILL = {
    "padding": None,
    "batches_looked_at": 0,
    "batches": 0,
    "tokens": 0,
    "micro_batch": None,
    "memory": None,
    "memory_of": None,
}
"""The same values for a stage reused from another run."""


def _kept(disk: Mapping[str, Any]) -> int | None:
    parts = [disk["final"], disk["snapshots"], disk["verdicts"]]
    return None if None in parts else sum(parts)


def cost_table(costs: Mapping[str, Any]) -> Table:
    """Build the table with one row a stage of each arm: a step's maximum, and the disk space.

    `kept` are the activations that autograd keeps for the backward pass, `step` and `record` all
    bytes alive at the peak of a training step and of a snapshot.
    """
    linked = any(stage["taken"] for arm in costs["arms"].values() for stage in arm["stages"])
    several = costs["processes"] > 1
    title = "Cost" + f" (memory in each of {costs['processes']} processes)" * several
    table = plain_table(title, (*_NOTES, *[_LINKED] * linked))
    known = any(
        stage["padding"] is not None for a in costs["arms"].values() for stage in a["stages"]
    )
    columns = ["arm", "stage", *["padding"] * known, "tokens", "kept", "logits", "step", "record"]
    for column in (*columns, "disk"):
        named = column in ("arm", "stage")
        kept = named or column == "tokens"
        table.add_column(column, justify="left" if named else "right", no_wrap=kept)
    for name, arm in costs["arms"].items():
        about = "" if arm["tokenizer"] == "its own" else "≈ "
        for index, stage in enumerate(arm["stages"]):
            table.add_row(
                name if index == 0 else "",
                f"{index + 1} {stage['stage']}",
                *(["–"] * 5 if stage["taken"] else _step_cells(stage, about))[not known :],
                amount(arm["snapshot_memory"]) if arm["snapshot_memory"] else "–",
                amount(_kept(stage["disk"])),
            )
    return table


def _step_cells(stage: Mapping[str, Any], about: str) -> tuple[str, ...]:
    """Return the cells of padding, tokens, kept, logits and step."""
    padding, micro, parts = stage["padding"], stage["micro_batch"], stage["memory_of"] or {}
    return (
        "?" if padding is None else f"{100 * padding:.1f} %",
        f"{about}{micro['rows']} × {micro['width']}",
        *(amount(parts.get(part)) for part in ("activations", "logits")),
        amount(stage["memory"]),
    )


def in_words(costs: Mapping[str, Any]) -> list[str]:
    """Return lines on the models' sizes, the totals, and the assumptions."""
    stages = [(arm, stage) for arm in costs["arms"].values() for stage in arm["stages"]]
    trained = [(arm, stage) for arm, stage in stages if not stage["taken"]]
    lines = list(dict.fromkeys(_model_line(arm, stage) for arm, stage in trained or stages))
    lines += _record_lines(costs["arms"])
    memory, disk, within = costs["memory"], costs["disk"], costs["disk_within"]
    lines.append(
        f"In all: memory {amount(memory)}, disk {amount(disk)}, while a stage trains "
        f"{amount(within)} more at most"
    )
    lines.append(
        "Assumed: the largest forward pass of the first epoch"
        + f"{_packed(costs)}; a GPU's context (0.5 GiB) and the allocator's rounding come on top."
    )
    if any(arm["tokenizer"] != "its own" for arm in costs["arms"].values()):
        lines.append(
            "≈ in tokens of the built-in tokenizer, the model's own not being on this machine: "
            "it needs more for the same text."
        )
    return lines


def _model_line(arm: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    size, parts = stage["size"], stage["memory_of"]
    if size is None:
        return f"{arm['model']}: its config.json is not on this machine, so its size is unknown"
    counts = f"{arm['model']}: {size['parameters']:,} parameters"
    if stage["taken"]:
        return counts
    counts += f", {size['trainable']:,} trained"
    return (
        f"{counts}; "
        f"weights {amount(parts['weights'])}, gradients {amount(parts['gradients'])}, "
        f"Adam {amount(parts['adam'])}"
    )


def _record_lines(arms: Mapping[str, Any]) -> list[str]:
    """Return one line for all arms that are recorded alike."""
    by_line: dict[str, list[str]] = {}
    for name, arm in arms.items():
        if arm["record"]:
            by_line.setdefault(_record_line(arm), []).append(name)
    named = len(by_line) > 1
    return [
        f"Record{' of ' + ', '.join(names) if named else ''}: {line}"
        for line, names in by_line.items()
    ]


def _record_line(arm: Mapping[str, Any]) -> str:
    """Describe the cost of recording, with its disk space in descending order."""
    cost = arm["record"]
    if not cost["snapshots"]:
        return "nothing; no stage has a step that record.at names"
    share = f" ({100 * cost['passes'] / cost['training']:.1f} %)" if cost["training"] else ""
    scratch = f" and {amount(cost['scratch'])} on disk" if cost["scratch"] else ""
    kinds = sorted((cost["disk"] or {}).items(), key=lambda kind: -kind[1])
    kept = ", ".join(f"{name.replace('_', ' ')} {amount(size)}" for name, size in kinds if size)
    return (
        f"{cost['snapshots']:,} snapshots, {cost['passes']:,} example passes beside "
        f"{cost['training']:,} of training{share}; memory for {_copies(cost['copies'])} "
        f"of the gradient {amount(cost['memory'])}{scratch}; files: {kept or UNKNOWN}"
    )


def _copies(count: int) -> str:
    return f"{count} cop{'y' if count == 1 else 'ies'}"


def _packed(costs: Mapping[str, Any]) -> str:
    stages = [stage for arm in costs["arms"].values() for stage in arm["stages"]]
    fewer = [stage for stage in stages if stage["batches_looked_at"] < stage["batches"]]
    return f", of its first {fewer[0]['batches_looked_at']} batches" if fewer else ""


def amount(size: int | None) -> str:
    """Format bytes: 512 B, 12 MiB, 1.4 GiB."""
    if size is None:
        return UNKNOWN
    value = float(size)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= _STEP and len(units) > 1:
        value /= _STEP
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value < 10 and size >= _STEP else f"{value:.0f} {units[0]}"  # noqa: PLR2004
