"""Schedule, names and rotation of checkpoints."""

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
"""Suffix of checkpoints found incomplete or changed: kept for inspection, never read again."""

_STEP = re.compile(r"step-(\d+)")


@dataclass
class Saving:
    """Checkpoints of one stage while it trains.

    Attributes:
        config: their schedule and number.
        folder: their folder.
        last: time of the last save, on `time.monotonic`'s clock.
    """

    config: CheckpointConfig
    folder: Path
    last: float = field(default_factory=time.monotonic)

    @property
    def final(self) -> Path:
        """Checkpoint at the stage's end."""
        return self.folder / FINAL

    def within(self, step: int) -> Path:
        """Return the path of the checkpoint after a step."""
        return self.folder / f"step-{step:06d}"

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step."""
        every, minutes = self.config.steps, self.config.minutes
        if every and step % every == 0:
            return True
        return minutes is not None and time.monotonic() - self.last >= 60 * minutes

    def saved(self) -> None:
        """Note a save, and remove the oldest checkpoints beyond the number to keep."""
        self.last = time.monotonic()
        for path in steps_in(self.folder)[self.config.keep :]:
            _remove(path)

    def clear(self) -> None:
        """Remove the checkpoints within the stage, which has ended."""
        for path in steps_in(self.folder):
            _remove(path)


def steps_in(folder: Path) -> list[Path]:
    """Return the checkpoints within a stage, the newest first."""
    found = [(int(m[1]), path) for path in folder.glob("*") if (m := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def tidy(stages: list[Path]) -> None:
    """Remove what a killed process left: partial files, and checkpoints within ended stages.

    Args:
        stages: the folders of a run's stages; the caller holds its lock.
    """
    for stage in stages:
        for path in sorted(stage.rglob("*" + PARTIAL), reverse=True):  # contents come first
            remove(path)
        folder = stage / "checkpoints"
        for path in steps_in(folder) if (folder / FINAL).exists() else ():
            _remove(path)


def newest(stages: list[Path]) -> tuple[Checkpoint | None, list[str]]:
    """Return the last complete checkpoint of a run; later damaged ones are set aside.

    Args:
        stages: the folders of its stages, in order.

    Returns:
        The checkpoint, None if there is none, and why each later one was skipped.
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
    """Remove a checkpoint; a kill leaves no part of it under its name."""
    remove(path.rename(path.with_name(path.name + PARTIAL)))


def _free(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
