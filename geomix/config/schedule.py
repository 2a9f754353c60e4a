"""Steps of a stage to record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from geomix.util.errors import UserError

MOST = 100_000
"""Most snapshots that a stage may have."""

_SPACED = re.compile(r"(log|every):([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps requested by `record.at`; see `parse` for the meaning of each item.

    Attributes:
        boundaries: whether θ_0 and the end of every stage are recorded.
        log: numbers of log-spaced steps a stage, one for each item.
        every: distances of evenly spaced steps, one for each item.
        steps: single steps, in every stage that is long enough.
    """

    boundaries: bool = False
    log: tuple[int, ...] = ()
    every: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    def steps_of(self, stage: int, steps: int) -> frozenset[int]:
        """Return the steps of one stage to record.

        Args:
            stage: index of the stage, from 0.
            steps: optimiser steps of the stage.

        Returns:
            Steps from 0 to `steps`, without step 0 of a later stage: those weights are the end of
            the stage before.

        Raises:
            UserError: they are more than `MOST`.
        """
        return _steps_of(self, stage, steps)


@lru_cache(maxsize=64)  # an observer asks after every step
def _steps_of(schedule: Schedule, stage: int, steps: int) -> frozenset[int]:
    about = sum(min(count, steps) for count in schedule.log)
    about += sum(steps // distance for distance in schedule.every)
    if about > MOST:
        raise UserError(
            f"record.at: about {about:,} snapshots in the {steps:,} steps of stage {stage + 1}, "
            f"and each is a file; ask for {MOST:,} at most, with a larger N in every:N"
        )
    found = {step for step in schedule.steps if step <= steps}
    if schedule.boundaries:
        found |= {0, steps}
    for count in schedule.log:
        found |= set(log_spaced(count, steps))
    for distance in schedule.every:
        found |= set(range(0, steps + 1, distance))
    return frozenset(found if stage == 0 else found - {0})


def log_spaced(count: int, steps: int) -> list[int]:
    """Return distinct steps from 1 to `steps` with ratios as equal as whole numbers allow.

    Args:
        count: how many; all steps if the stage has fewer. A single one is step 1.
        steps: the last of them.
    """
    if steps < 1:
        return []
    points = [1.0]
    while len(points) < min(count, steps):
        ratio = (steps / points[-1]) ** (1 / (count - len(points)))
        # Where the ratio gains less than a step, take the next step instead.
        points.append(max(points[-1] * ratio, points[-1] + 1))
    return [int(point + 0.5) for point in points]


def parse(at: Sequence[str | int]) -> Schedule:
    """Parse `record.at`.

    Args:
        at: items `boundaries` (step 0 of the first stage and the last step of every stage), `log:N`
            (N log-spaced steps of every stage, from 1 to its last), `every:N` (the steps that N
            divides, 0 of the first stage included), and whole numbers (that step of every stage).

    Raises:
        ValueError: an item is none of these; the message names it.
    """
    boundaries = False
    spaced: dict[str, list[int]] = {"log": [], "every": []}
    steps: list[int] = []
    for item in at:
        found = _SPACED.fullmatch(item) if isinstance(item, str) else None
        if item == "boundaries":
            boundaries = True
        elif found:
            spaced[found.group(1)].append(int(found.group(2)))
        elif isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            steps.append(item)
        else:
            raise ValueError(
                f"record.at: {item!r} is not 'boundaries', 'log:N', 'every:N' (N from 1) "
                "or a step number from 0"
            )
    return Schedule(boundaries, tuple(spaced["log"]), tuple(spaced["every"]), tuple(steps))


def snapshots(at: Sequence[str | int], stage: int, steps: int, *, reused: bool) -> int:
    """Return the number of snapshots of a stage that runs all its steps.

    Args:
        at: as in `parse`.
        stage: index of the stage, from 0.
        steps: optimiser steps of the stage.
        reused: whether it is reused from another run, which has only its first and last step.

    Raises:
        UserError: they are more than `MOST`.
    """
    scheduled = parse(at).steps_of(stage, steps)
    return len(scheduled & {0, steps} if reused else scheduled)


def steps_to_record(at: Sequence[str | int], stage: int, steps: int) -> frozenset[int]:
    """Return `parse(at).steps_of(stage, steps)`."""
    return parse(at).steps_of(stage, steps)
