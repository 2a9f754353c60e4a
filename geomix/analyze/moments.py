"""What a snapshot's moment is called, and which moments are looked at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_ROWS = 5


@dataclass(frozen=True, slots=True)
class TrainingMoment:
    """A recorded moment of a run.

    Attributes:
        stage: index of the stage, from 0.
        step: optimiser steps done in this stage.
        end: whether the stage ends here.
        reduction: that of the loss whose gradients were taken, `token` or `example`.
    """

    stage: int
    step: int
    end: bool
    reduction: str

    @property
    def label(self) -> str:
        """`θ_0`, then `θ_A` where stage 0 ends, `θ_A+4` four steps into the next stage, `θ_B`."""
        if self.end:
            return _boundary(self.stage + 1)
        return _boundary(self.stage) + (f"+{self.step}" if self.step else "")

    @property
    def is_boundary(self) -> bool:
        """Whether it is the base model or the end of a stage."""
        return self.end or self.step == 0


def _boundary(stages: int) -> str:
    return "θ_0" if stages == 0 else f"θ_{chr(ord('A') + stages - 1)}"


def key_moments(runs: Sequence[Sequence[TrainingMoment]], middle: bool = True) -> list[str]:
    """Labels of the moments that a table or figure of these runs shows.

    The base model, the end of every stage, and of each later stage the first and the middle one of
    the steps between that all runs which came so far have in common.

    Args:
        runs: for each run, its moments in order.
        middle: whether the middle one is wanted beside the first.
    """
    stages = sorted({moment.stage for run in runs for moment in run})
    labels: dict[str, None] = {}
    for stage in stages:
        here = [[moment for moment in run if moment.stage == stage] for run in runs]
        starts = [m for run in here for m in run if m.is_boundary and not m.end]
        labels |= dict.fromkeys(moment.label for moment in starts)
        between = [{m.step for m in run if not m.is_boundary} for run in here if run]
        steps = sorted(set.intersection(*between)) if stage > 0 else []
        chosen = {steps[0], steps[len(steps) // 2 if middle else 0]} if steps else set()
        labels |= dict.fromkeys(f"{_boundary(stage)}+{step}" for step in sorted(chosen))
        labels |= dict.fromkeys(m.label for run in here for m in run if m.end)
    return list(labels)


def figure_moments(runs: Sequence[Sequence[TrainingMoment]]) -> list[str]:
    """The key moments, without the middle ones where they would be more rows than a page holds."""
    found = key_moments(runs)
    return found if len(found) <= _MOST_ROWS else key_moments(runs, middle=False)
