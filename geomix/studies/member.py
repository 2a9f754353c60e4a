"""A member of a sweep: an ordinary run, with its configuration and log beside it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geomix.config.load import Experiment
from geomix.runs.configs import differences, stored_configs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.links import reject_links
from geomix.util.signals import EXIT

State = Literal["left", "queued", "running", "done", "interrupted", "failed"]

_BEFORE_TRAINING = {"lock", "status.json", "config.yaml", "env.json"}
"""Files of a run's folder before `resolved.json` makes it a run."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        sweep: the sweep's folder.
        overrides: its own overrides, with dotted keys.
        experiment: its configuration; the text is a complete YAML file.
    """

    name: str
    sweep: Path
    overrides: dict[str, Any]
    experiment: Experiment

    @property
    def run(self) -> RunDirectory:
        """Run directory of the member."""
        return RunDirectory(self.sweep / self.name)

    @property
    def config_file(self) -> Path:
        """Complete configuration file, for `geomix train`."""
        return self.sweep / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """Log of its processes' output, one after the other."""
        return self.sweep / f"{self.name}.log"

    @property
    def begun(self) -> bool:
        """True if there is a run to resume."""
        return self.run.resolved_file.exists()

    @property
    def done(self) -> bool:
        """True if it is complete.

        Raises:
            UserError: its `status.json` cannot be read.
        """
        run = self.run
        return self.begun and run.status_file.exists() and run.status()["state"] == "done"


@dataclass(frozen=True, slots=True)
class Outcome:
    """State of a member.

    Attributes:
        state: `left` if it was not started.
        why: the last line of a failure.
    """

    state: State
    why: str = ""


def command(config: Path | str, folder: Path | str, resume: bool) -> list[str]:
    """Return the command that starts or resumes a member.

    Args:
        config: its YAML file.
        folder: its run directory.
        resume: whether the folder is already a run.
    """
    # -P: nothing in the working directory may be imported in place of a library
    start = [sys.executable, "-P", "-m", "geomix", "train", str(config)]
    return [*start, "--resume" if resume else "--out", str(folder)]


def standing(member: Member) -> State:
    """Return a member's state before this process has started it."""
    if member.run.is_locked():
        return "running"
    if not member.begun:
        return "left"
    return "done" if member.done else "interrupted"


def reject_others(members: Sequence[Member]) -> None:
    """Reject folders that hold something other than these members.

    Raises:
        UserError: a line for each folder's every difference, then what to do.
    """
    mistakes = []
    for member in members:
        run = member.run
        try:
            reject_links([run.path])
            if member.begun:
                standing(member)  # a status that cannot be read is reported now
                mistakes += differences(run, stored_configs(run), member.experiment.arms)
            elif run.path.exists() and (others := _others(run.path)):
                mistakes.append(f"{run.path}: no run of geomix; it holds {', '.join(others[:3])}")
        except UserError as error:
            mistakes += error.lines
    if mistakes:
        raise UserError(
            *mistakes, "give the study another `out:`, or move what is in the way elsewhere"
        )


def _others(folder: Path) -> list[str]:
    """Return files that a run killed at its start would not have left."""
    if not folder.is_dir():
        return ["a file"]
    known = {file.name.removesuffix(".partial") for file in folder.iterdir()}
    return sorted(known - _BEFORE_TRAINING - {"resolved.json"})


def clear_false_start(member: Member) -> None:
    """Remove what a member left that was killed before its folder became a run."""
    folder = member.run.path
    if folder.is_dir() and not member.begun and not _others(folder):
        for file in folder.iterdir():
            file.unlink()


def outcome(member: Member, status: int | None) -> Outcome:
    """Return how a member's process ended.

    Args:
        member: the member.
        status: the exit status, negative for a signal; None if unknown, on SLURM.
    """
    try:
        if member.done:
            return Outcome("done")
        state = member.run.status()["state"] if member.begun else None
    except UserError as error:
        return Outcome("failed", error.lines[0])
    asked = status in (EXIT, -signal.SIGTERM)  # the signal's own status if it came before training
    if asked or (status is None and state == "interrupted"):
        return Outcome("interrupted")
    killed = f"killed by signal {-status}" if status is not None and status < 0 else ""
    return Outcome("failed", killed or last_line(member.log) or f"exit status {status}")


def last_line(log: Path) -> str:
    """Return a log's last non-blank line; "" if nothing was printed since the last start."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if found.startswith("$ ") else found.removeprefix("geomix: ")
