"""Cost of recording: additional passes over examples, memory and files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geomix.config.schedule import snapshots, steps_to_record
from geomix.data.plan import planned_steps
from geomix.planning.disk import disk_of
from geomix.planning.estimate import Arm
from geomix.recording.quantities import QUANTITIES


@dataclass(frozen=True, slots=True)
class RecordCost:
    """Recording cost of one arm, at most.

    Attributes:
        snapshots: number of snapshots.
        passes: forward and backward passes of examples for them.
        training: forward and backward passes of examples in training.
        copies: gradients and weights of the model held in addition.
        memory: bytes of those; None if the model's size is unknown.
        scratch: bytes of gradients on the disk while a snapshot is computed; None likewise.
        disk: bytes of the files by kind; None likewise.
    """

    snapshots: int
    passes: int
    training: int
    copies: int
    memory: int | None
    scratch: int | None
    disk: dict[str, int] | None


def record_cost(arm: Arm) -> RecordCost | None:
    """Return the cost of recording an arm; None if nothing is recorded."""
    record = arm.config.record
    if record is None:
        return None
    count = passes = training = copies = 0
    each = sum(min(len(examples), record.probes) for examples in arm.probes.values())
    kept: dict[str, int] = {}
    further = sum(QUANTITIES[one.name].cost(one).passes for one in record.quantities)
    for index, (stage, plan) in enumerate(zip(arm.config.stages, arm.plans, strict=True)):
        steps, reused = planned_steps(stage, plan), stage.from_ is not None
        found = snapshots(record.at, index, steps, reused=reused)
        count += found
        begun = 0 in steps_to_record(record.at, index, steps)  # with the gradients of a snapshot
        passes += each * (found + record.midpoints * (found + (-1 if begun else 1)))
        passes += math.ceil(each * found * further)
        if not reused:
            trained = sum(len(part.examples) for part in plan.sets.values() if part.trained)
            training += round(steps * trained / plan.steps(1, stage.train.batch_size))
        copies = max(copies, arm.record_copies(index))
        for kind, written in disk_of(arm, index).record.items():
            kept[kind] = kept.get(kind, 0) + written
    sizes = [arm.size(index) for index in range(len(arm.plans))]
    one = max((s.trainable * s.item for s in sizes if s), default=None)
    on_disk = len(arm.probes) * (1 + record.pairs) if record.scratch == "disk" else 0
    return RecordCost(
        snapshots=count,
        passes=passes,
        training=training,
        copies=copies,
        memory=one and copies * one,
        scratch=one and on_disk * one,
        disk=kept if one else None,
    )
