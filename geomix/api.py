"""What a notebook or a script uses: `geomix.open_run` and the run that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.runs import directory
from geomix.runs.directory import RunDirectory

if TYPE_CHECKING:
    from geomix.snapshots.records import Records


@dataclass(frozen=True, slots=True)
class Run(RunDirectory):
    """A run on disk, finished, interrupted or still being trained."""

    @property
    def records(self) -> Records:
        """What the recorder wrote, as labelled arrays; of a run with arms, ask each arm."""
        from geomix.snapshots.records import Records

        return Records(self)


def open_run(path: str | Path) -> Run:
    """Open a run.

    Args:
        path: the run's folder.

    Raises:
        UserError: there is no such folder, it is not a run, or its name is no text.
    """
    return Run(directory.open_run(path).path)
