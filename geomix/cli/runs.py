"""The runs that a command names: folders of runs, and of sweeps, which stand for all their runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geomix.runs.directory import RunDirectory, newest_run, open_run
from geomix.studies.table import is_sweep, runs_of
from geomix.util.errors import UserError
from geomix.util.terminal import echo


def named_runs(folders: Sequence[Path]) -> list[RunDirectory]:
    """Return the runs of each folder in turn; by default the newest run under runs/.

    `SWEEP/*` also names other files of a sweep; a line reports that they are left out.

    Raises:
        UserError: one of them is no run, or there is none among them.
    """
    if not folders:
        return [newest_run()]
    found: list[RunDirectory] = []
    beside: dict[Path, list[str]] = {}
    for folder in folders:
        if is_sweep(folder):
            found += [run for run in runs_of(folder) if run not in found]
        elif is_sweep(folder.parent) and (folder.name == "_sweep" or folder.is_file()):
            beside.setdefault(folder.parent, []).append(folder.name)
        else:
            found.append(open_run(folder))
    if not found:
        raise UserError(f"{folders[0]}: no run of this sweep has begun")
    for sweep, names in beside.items():
        echo(f"geomix: {sweep}: left out, no runs: {', '.join(names)}", err=True)
    return found
