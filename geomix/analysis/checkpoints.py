"""Names of snapshots' checkpoints, and the main checkpoints of a table or figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geomix.config.names import checkpoint_name
from geomix.util.errors import UserError

_MOST_ROWS = 5


@dataclass(frozen=True, slots=True)
class NamedCheckpoint:
    """A recorded checkpoint of a run.

    Attributes:
        stage: index of the stage, from 0.
        step: optimiser steps done in this stage.
        end: whether the stage ends here.
        reduction: that of the loss whose gradients were recorded, `token` or `example`.
    """

    stage: int
    step: int
    end: bool
    reduction: str

    @property
    def label(self) -> str:
        """Label: `θ_0`, then `θ_A` at the end of stage 0, `θ_A+4` four steps later, then `θ_B`."""
        if self.end:
            return checkpoint_name(self.stage + 1)
        return checkpoint_name(self.stage) + (f"+{self.step}" if self.step else "")

    @property
    def is_boundary(self) -> bool:
        """True for the base model and the end of a stage."""
        return self.end or self.step == 0


def key_checkpoints(runs: Sequence[Sequence[NamedCheckpoint]], middle: bool = True) -> list[str]:
    """Return labels of the main checkpoints of these runs, for a table or figure.

    These are the base model, the end of every stage, and in each later stage the first and the
    middle one of the intermediate steps that all runs which reached it share. If none are left, as
    with checkpoints of the first stage alone, the first and the last one.

    Args:
        runs: for each run, its checkpoints in order.
        middle: whether to include the middle one beside the first.
    """
    stages = sorted({checkpoint.stage for run in runs for checkpoint in run})
    labels: dict[str, None] = {}
    for stage in stages:
        here = [[checkpoint for checkpoint in run if checkpoint.stage == stage] for run in runs]
        starts = [m for run in here for m in run if m.is_boundary and not m.end]
        labels |= dict.fromkeys(checkpoint.label for checkpoint in starts)
        between = [{m.step for m in run if not m.is_boundary} for run in here if run]
        steps = sorted(set.intersection(*between)) if stage > 0 else []
        chosen = {steps[0], steps[len(steps) // 2 if middle else 0]} if steps else set()
        labels |= dict.fromkeys(f"{checkpoint_name(stage)}+{step}" for step in sorted(chosen))
        labels |= dict.fromkeys(m.label for run in here for m in run if m.end)
    every = sorted((m for run in runs for m in run), key=lambda m: (m.stage, m.step))
    return list(labels or dict.fromkeys(m.label for m in (every[:1] + every[-1:])))


def figure_checkpoints(runs: Sequence[Sequence[NamedCheckpoint]]) -> list[str]:
    """Return the main checkpoints, without the middle ones if the rows would not fit a page."""
    found = key_checkpoints(runs)
    return found if len(found) <= _MOST_ROWS else key_checkpoints(runs, middle=False)


_ASKED = re.compile(r"(?:(?:θ_|theta_)?(0|[A-Z]))?(?:\+([0-9]{1,9}))?")


def chosen(at: Sequence[str]) -> Callable[[NamedCheckpoint], bool]:
    """Return a filter for the requested checkpoints.

    Args:
        at: `0` or `θ_0`, `A`, `B`, …, `A+4` (four steps after θ_A), or `+4` (after that many steps
            of any stage but the first); all checkpoints if it is empty.

    Raises:
        UserError: an item is none of these.
    """
    wanted = [_asked(item) for item in at]

    def is_chosen(checkpoint: NamedCheckpoint) -> bool:
        return not wanted or any(_is(checkpoint, *item) for item in wanted)

    return is_chosen


def as_asked(at: Sequence[str]) -> tuple[str, ...]:
    """Return each requested checkpoint once and in one spelling: `A`, `A+4`, `+4`.

    Args:
        at: as for `chosen`.

    Raises:
        UserError: an item is no checkpoint.
    """
    parsed = [_asked(item) for item in at]
    named = (start + (f"+{step}" if step or not start else "") for start, step in parsed)
    return tuple(dict.fromkeys(named))


def _asked(item: str) -> tuple[str, int]:
    found = _ASKED.fullmatch(item.strip())
    if found is None or not item.strip():
        raise UserError(f"--at {item[:40]}: give moments such as 0, A, A+4, +4 or B")
    return found[1] or "", int(found[2] or 0)


def _is(checkpoint: NamedCheckpoint, start: str, step: int) -> bool:
    if start:
        return checkpoint.label == f"θ_{start}" + (f"+{step}" if step else "")
    return checkpoint.stage > 0 and not checkpoint.is_boundary and checkpoint.step == step
