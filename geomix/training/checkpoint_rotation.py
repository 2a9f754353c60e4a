"""When a checkpoint is due, what it is called, and which are kept."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from geomix.config.run import CheckpointConfig
from geomix.training.checkpoint import FINAL, Checkpoint, check
from geomix.util.errors import UserError
from geomix.util.files import PARTIAL, remove

DAMAGED = ".damaged"
"""Ending of what was found incomplete or changed: kept for a look, never read again."""

_STEP = re.compile(r"step-(\d+)")


@dataclass
class Saving:
    """The checkpoints of one stage while it trains.

    Attributes:
        config: when they are due, how many are kept.
        folder: where they are.
        last: when the last was saved, on `time.monotonic`'s clock.
    """

    config: CheckpointConfig
    folder: Path
    last: float = field(default_factory=time.monotonic)

    @property
    def final(self) -> Path:
        """The checkpoint at the stage's end."""
        return self.folder / FINAL

    def within(self, step: int) -> Path:
        """The checkpoint after a step."""
        return self.folder / f"step-{step:06d}"

    def due(self, step: int) -> bool:
        """Whether one is to be saved after this step."""
        every, minutes = self.config.steps, self.config.minutes
        if every and step % every == 0:
            return True
        return minutes is not None and time.monotonic() - self.last >= 60 * minutes

    def saved(self) -> None:
        """One was saved: remove the oldest that are more than are kept."""
        self.last = time.monotonic()
        for path in steps_in(self.folder)[self.config.keep :]:
            _remove(path)

    def clear(self) -> None:
        """The stage has ended: remove those within it."""
        for path in steps_in(self.folder):
            _remove(path)


def steps_in(folder: Path) -> list[Path]:
    """The checkpoints within a stage, the newest first."""
    found = [(int(m[1]), path) for path in folder.glob("*") if (m := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def tidy(stages: list[Path]) -> None:
    """Remove what a killed process left: half-written files, and checkpoints within ended stages.

    Args:
        stages: the folders of a run's stages; the caller holds its lock.
    """
    for stage in stages:
        for path in sorted(stage.rglob("*" + PARTIAL), reverse=True):  # what is inside comes first
            remove(path)
        folder = stage / "checkpoints"
        for path in steps_in(folder) if (folder / FINAL).exists() else ():
            _remove(path)


def newest(stages: list[Path]) -> tuple[Checkpoint | None, list[str]]:
    """The last complete checkpoint of a run; later ones that are not are set aside.

    Args:
        stages: the folders of its stages, in order.

    Returns:
        The checkpoint, None where there is none, and why each later one was skipped.
    """
    skipped: list[str] = []
    for stage in reversed(stages):
        folder = stage / "checkpoints"
        final = folder / FINAL
        for path in [*([final] if final.exists() else []), *steps_in(folder)]:
            try:
                return check(path), skipped
            except UserError as error:
                skipped.append(str(error))
                path.rename(_free(path.with_name(path.name + DAMAGED)))
    return None, skipped


def _remove(path: Path) -> None:
    """Remove a checkpoint; what a kill leaves of it is not under its name."""
    remove(path.rename(path.with_name(path.name + PARTIAL)))


def _free(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
