"""Index of a run's snapshots: stage, step and file, known without opening any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geomix.runs.directory import RunDirectory, snapshot_position


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot on disk.

    Attributes:
        stage: index of the stage, from 0.
        stage_name: its name.
        step: optimiser steps done in the stage.
        path: the file.
    """

    stage: int
    stage_name: str
    step: int
    path: Path

    @property
    def name(self) -> str:
        """Name `stage0-step000120`, the key in `Records`."""
        return self.path.stem


def snapshot_files(run: RunDirectory) -> list[SnapshotFile]:
    """Return the snapshots of a run, in the order of stage and step."""
    folders = (run.path / "stages").glob("*-*")
    names = dict(folder.name.split("-", 1) for folder in folders)
    found = [(snapshot_position(path.name), path) for path in run.snapshots()]
    return [SnapshotFile(at[0], names.get(str(at[0]), ""), at[1], path) for at, path in found if at]
