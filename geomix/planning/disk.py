"""Disk space of a stage: checkpoints, snapshots, example scores and metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from geomix.config.schedule import snapshots, steps_to_record
from geomix.data.example import Example
from geomix.data.plan import planned_steps
from geomix.planning.estimate import Arm
from geomix.planning.memory import Size
from geomix.recording.quantities.collected import quantities_of

_LINE = 210
"""Bytes of a line of `metrics.jsonl`, and of an example score without its texts."""

_DATASET = 900
"""Bytes that HDF5 needs to describe a dataset."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that a stage writes; None if the model's size is unknown.

    Attributes:
        final: the checkpoint at its end, with Adam's second moments.
        within: the checkpoints kept during training, and the one being written.
        snapshots: of the recorder.
        verdicts: example scores of the evaluations, the metrics, and the files of `evaluate.kl`.
        record: the recorder's by kind; empty if nothing is recorded.
    """

    final: int | None
    within: int | None
    snapshots: int | None
    verdicts: int
    record: dict[str, int] = field(default_factory=dict)


def disk_of(arm: Arm, index: int) -> Disk:
    """Return the bytes that a stage of an arm writes; a reused stage's files are only linked."""
    size, saving = arm.size(index), arm.config.checkpoint
    record, reused = arm.config.record, arm.config.stages[index].from_ is not None
    steps = planned_steps(arm.config.stages[index], arm.plans[index])
    verdicts = _example_scores(arm, index, steps) + (0 if reused else _beginnings(arm))
    if size is None:
        return Disk(0 if reused else None, 0 if reused else None, None, verdicts)
    by_kind: dict[str, int] = {}
    if record is not None:
        count = snapshots(record.at, index, steps, reused=reused)
        by_kind = {kind: count * n for kind, n in _snapshot(arm, size, index).items()}
    written = sum(by_kind.values())
    if reused:
        return Disk(0, 0, written, verdicts, by_kind)
    if record is not None and record.weights:
        within = len(steps_to_record(record.at, index, steps) - {0, steps})
        by_kind["weights"] = within * (size.parameters + size.trainable) * size.item
        written += by_kind["weights"]
    kept = saving.keep + 1 if saving.steps or saving.minutes else 0
    moment = size.trainable * size.item
    weights = size.parameters * size.item
    return Disk(weights + moment, kept * (weights + 2 * moment), written, verdicts, by_kind)


def _snapshot(arm: Arm, size: Size, index: int) -> dict[str, int]:
    """Return the bytes of one snapshot by kind; a module's output counts as a residual stream."""
    record, sets = arm.config.record, len(arm.probes)
    assert record is not None
    examples = [e for found in arm.recorded().values() for e in found]
    kept = sum(
        e.target_tokens for found in arm.recorded().values() for e in found[: record.activations]
    )
    tensors, modules = size.tensors, arm.modules()
    entries = record.sketches.entries if record.sketches else 0
    each = 8 + 3 * bool(entries) + 5 * bool(record.activations) + 2 * record.lens + 4 * modules
    datasets = (
        sets * (each + record.gradients * tensors) + 9 + 5 * record.midpoints + 2 * record.pairs
    )
    targets = sum(e.target_tokens for e in examples)
    nodes = 3 * record.midpoints + 2 * record.pairs
    further = quantities_of(record.quantities).values()
    datasets += sets * sum(len(one.variables) for one in further)
    return {
        "description": datasets * _DATASET + tensors * 150 + 24 * targets + 20 * len(examples),
        "activations": kept * (size.layers + 1 + modules) * size.features * 4 * 2,
        "sketches": len(examples) * tensors * entries * 4 + sets * tensors * 80 * bool(entries),
        "lens": kept * (size.layers + 1) * 8 * record.lens,
        "inner_products": tensors * 8 * sets**2 * (1 + record.adam) + tensors * sets,
        "path": tensors * 8 * sets * nodes * (1 + arm.parts(index)),
        "gradients": sets * size.trainable * 4 * record.gradients,
        "quantities": sum(one.size(known) for one in further for known in _lengths(arm, size)),
    }


def _lengths(arm: Arm, size: Size) -> list[dict[str, int]]:
    """Return the lengths of the dimensions of each probe set's group."""
    return [
        {
            "example": len(examples),
            "position": sum(example.target_tokens for example in examples),
            "parameter": size.tensors,
        }
        for examples in arm.recorded().values()
    ]


def _example_scores(arm: Arm, index: int, steps: int) -> int:
    stage, every = arm.config.stages[index], arm.config.evaluate.epochs
    own = [_texts(plan.own) for plan in arm.plans]
    extra = sum(_texts(examples) for examples in arm.evaluated.values())
    mixed = sum(_texts(plan.mixed) for plan in arm.plans)
    boundaries = (2 if index == 0 else 1) * (sum(own) + mixed + extra)
    if stage.from_ is not None:
        return boundaries
    epochs = math.ceil(steps / arm.plans[index].steps(1, stage.train.batch_size))
    between = (epochs - 1) // every if every else 0
    return between * (sum(own[: index + 1]) + extra) + boundaries + _LINE * steps


def _beginnings(arm: Arm) -> int:
    """Return the bytes of stored start distributions, float32, at most a token per character."""
    kl, rows = arm.config.evaluate.kl, getattr(arm.base.config, "vocab_size", None)
    if kl is None or rows is None:
        return 0
    sets = [plan.own for plan in arm.plans]
    sets += [part.examples for plan in arm.plans for part in plan.mixes.values()]
    positions = [
        min(kl.positions, sum(len(e.target) + 1 for e in examples[: kl.examples]))
        for examples in [*sets, *arm.evaluated.values()]
    ]
    return 4 * int(rows) * sum(positions)


def _texts(examples: Sequence[Example]) -> int:
    """Return the bytes of example scores; a prediction is about as long as its target."""
    return sum(_LINE + len(e.prompt) + 2 * len(e.target) for e in examples)
