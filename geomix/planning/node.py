"""Memory of one process of a node: alone, with the whole model (DDP), or with a shard (FSDP2).

The memory of a single process is measured (`geomix.planning.memory`); that of several is derived
from the sizes:

- DDP: every process holds all of it, and the gradients once more in the buckets in which they are
  exchanged (`gradient_as_bucket_view` is off).
- FSDP2: weights, gradients and moments are divided by the processes. While a pass runs, what stands
  outside of the layers (embedding, head, last norm) is whole, with its gradients and the buffer
  from which they are scattered; so are two layers at a time, the one that computes and the next.
  When a set is scored or a snapshot looks through the lens, all weights are whole at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from geomix.config.run import RunConfig
from geomix.planning.estimate import Arm, Packing
from geomix.planning.memory import Memory
from geomix.planning.record_cost import record_cost

Kind = Literal["ddp", "fsdp"]

Recording = Literal["memory", "disk", "none"]
"""Storage of the recorder's gradients while a snapshot is computed; `none` records nothing."""

GIB = 2**30

CONTEXT = GIB // 2
"""Bytes used by CUDA and its libraries."""

ROOM = 0.9
"""Share of a memory up to which an estimate fits: the allocator leaves gaps."""

_OUTSIDE = 3
"""Copies of everything outside of the layers under FSDP2: weights, gradients, and their buffer."""

_LAYER = 4
"""Copies of a layer under FSDP2: its weights and the next one's, its gradients and their buffer."""


@dataclass(frozen=True, slots=True)
class Node:
    """Processes that train together.

    Attributes:
        processes: their number, one a GPU.
        memory: bytes of each one's GPU, or of the machine.
        gpus: whether they have GPUs.
        assumed: whether these are defaults, not the user's.
    """

    processes: int
    memory: int
    gpus: bool = True
    assumed: bool = False

    def verdict(self, needed: int) -> Literal["fits", "tight", "does not fit"]:
        """Return whether so many bytes fit in a process; `tight` if the allocator's gaps decide."""
        whole = needed + (CONTEXT if self.gpus else 0)
        if whole <= ROOM * self.memory:
            return "fits"
        return "tight" if whole <= self.memory else "does not fit"


EIGHT = Node(8, 80 * GIB, assumed=True)
"""Default node for a model that is too large for this machine."""


def of_step(arm: Arm, index: int, packing: Packing, processes: int = 1) -> int | None:
    """Return the peak bytes of a process in a step of a stage; None if the shape is unknown.

    Args:
        arm: an arm.
        index: of the stage.
        packing: its batches, laid out for so many processes.
        processes: number of processes.
    """
    if processes == 1:
        return arm.memory(index, packing)
    parts, copies = arm.memory_parts(index, packing), arm.copies(index)
    if parts is None:
        return None
    if arm.config.parallel == "fsdp":
        return _sharded(arm, index, parts, processes, 1 + copies)
    return parts.step(packing.passes) + (copies + 1) * parts.gradients


def of_snapshot(arm: Arm, processes: int = 1) -> int | None:
    """Return a process's peak bytes in a snapshot; None if nothing is recorded or it is unknown."""
    if processes == 1:
        return arm.snapshot_memory()
    most: int | None = None
    for index, stage in enumerate(arm.config.stages):
        parts = arm.snapshot_parts(index, processes)
        if parts is None:
            return None
        copies = arm.record_copies(index)
        if stage.from_ is not None:
            parts = replace(parts, adam=0)
        if arm.config.parallel == "fsdp":
            found = _sharded(arm, index, parts, processes, copies)
        else:
            beside = arm.record_copies(index) - arm.held
            found = parts.snapshot(arm.held) + (beside + 1) * parts.gradients
        most = max(most or 0, found)
    return most


def _sharded(arm: Arm, index: int, parts: Memory, processes: int, copies: int) -> int:
    """Return the peak bytes of one process under FSDP2, with so many copies of the gradients."""
    outside, layer = arm.groups(index)
    shards = (parts.weights + parts.adam + copies * parts.gradients) // processes
    held = parts.weights + parts.gradients
    passing = max(parts.pass_after, held) - held + _OUTSIDE * outside + _LAYER * layer
    return shards + max(passing, parts.weights)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to train on a node, and its memory.

    Attributes:
        parallel: how the processes share the model.
        precision: of the heaviest stage.
        checkpointing: whether activations are recomputed.
        memory: peak bytes of a process.
        record: storage of the recorder's gradients.
        scratch: bytes of these on the disk meanwhile, of all processes.
    """

    parallel: Kind
    precision: str
    checkpointing: bool
    memory: int
    record: Recording = "memory"
    scratch: int = 0

    def keys(self, other: Way) -> str:
        """Return the `--set` options that turn another way into this one."""
        found = [f"parallel={self.parallel}"] * (self.parallel != other.parallel)
        found += ["train.gradient_checkpointing=true"] * (
            self.checkpointing and not other.checkpointing
        )
        found += [f"train.precision={self.precision}"] * (self.precision != other.precision)
        if self.record != other.record:
            found.append("record=null" if self.record == "none" else "record.scratch=disk")
        return " ".join(f"--set {key}" for key in found)


def way_of(arm: Arm, index: int, processes: int) -> Way | None:
    """Return an arm as configured, on so many processes; None if its size is unknown."""
    step = of_step(arm, index, arm.packing(index, processes), processes)
    if step is None:
        return None
    return way_with(arm, index, max(step, of_snapshot(arm, processes) or 0))


def way_with(arm: Arm, index: int, memory: int) -> Way:
    """Return an arm as configured, with the given memory."""
    train, record = arm.config.stages[index].train, arm.config.record
    kept: Recording = "none" if record is None else record.scratch
    cost = record_cost(arm) if kept == "disk" else None
    scratch = (cost.scratch or 0) if cost else 0
    again = train.gradient_checkpointing
    return Way(arm.config.parallel, train.precision, again, memory, kept, scratch)


def recorded_otherwise(
    arms: Sequence[Arm], index: int, processes: int, memory: int
) -> Iterator[Way]:
    """Yield ways to record with a lower peak over all arms, the most complete first.

    Args:
        arms: of the experiment, that of the way first.
        index: of its stage.
        processes: number of processes that train together.
        memory: peak bytes of a process as configured.
    """
    others: list[dict[str, Any] | None] = [{"scratch": "disk"}, None]
    for changes in others:
        changed = [_recorded(arm, changes) for arm in arms]
        if all(one.config == arm.config for one, arm in zip(changed, arms, strict=True)):
            continue
        found = [_most(arm, processes) for arm in changed]
        known = [one for one in found if one is not None]
        if len(known) == len(found) and (most := max(known)) < memory:
            yield way_with(changed[0], index, most)


def _recorded(arm: Arm, changes: dict[str, Any] | None) -> Arm:
    record = arm.config.record
    if record is None:
        return arm
    other = None if changes is None else record.model_copy(update=changes)
    return replace(arm, config=arm.config.model_copy(update={"record": other}))


def _most(arm: Arm, processes: int) -> int | None:
    """Return the peak bytes of a process in any stage of an arm; None if its size is unknown."""
    steps = [
        of_step(arm, index, arm.packing(index, processes), processes)
        for index, stage in enumerate(arm.config.stages)
        if stage.from_ is None
    ]
    known = [step for step in steps if step is not None]
    return max([*known, of_snapshot(arm, processes) or 0]) if len(known) == len(steps) else None


def other_ways(arm: Arm, index: int, processes: int) -> Iterator[Way]:
    """Yield other ways to train an arm with less memory, the smallest change first."""
    given = arm.config
    sketched = given.record is not None and given.record.sketches is not None
    whole = processes == 1 or sketched or any(stage.train.lora for stage in given.stages)
    tried: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}]
    tried += [{"gradient_checkpointing": True, "precision": "bf16-pure"}]
    seen = [given]
    for changes in tried:
        for parallel in (given.parallel,) if whole else ("ddp", "fsdp"):
            other = _changed(given, parallel, changes)
            if other in seen:
                continue
            seen.append(other)
            found = way_of(replace(arm, config=other), index, processes)
            if found is not None:
                yield found


def _changed(config: RunConfig, parallel: str, changes: dict[str, Any]) -> RunConfig:
    stages = [
        stage.model_copy(update={"train": stage.train.model_copy(update=changes)})
        for stage in config.stages
    ]
    return config.model_copy(update={"stages": stages, "parallel": parallel})
