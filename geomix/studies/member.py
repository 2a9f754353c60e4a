"""A member of a sweep: an ordinary run, its configuration and its log beside it."""

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
from geomix.util.links import refuse_links
from geomix.util.signals import EXIT

State = Literal["left", "queued", "running", "done", "interrupted", "failed"]

_BEFORE_TRAINING = {"lock", "status.json", "config.yaml", "env.json"}
"""What a run's folder holds before `resolved.json` makes it a run."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        sweep: the sweep's folder.
        overrides: what distinguishes it, keys in dots.
        experiment: its configuration; the text is a YAML file of its own.
    """

    name: str
    sweep: Path
    overrides: dict[str, Any]
    experiment: Experiment

    @property
    def run(self) -> RunDirectory:
        """Its run directory."""
        return RunDirectory(self.sweep / self.name)

    @property
    def config_file(self) -> Path:
        """Its whole configuration, for `geomix train`."""
        return self.sweep / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What its processes printed, one after the other."""
        return self.sweep / f"{self.name}.log"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self.run.resolved_file.exists()

    @property
    def done(self) -> bool:
        """Whether it is complete.

        Raises:
            UserError: its `status.json` cannot be read.
        """
        run = self.run
        return self.begun and run.status_file.exists() and run.status()["state"] == "done"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a member stands.

    Attributes:
        state: `left` where it was not started.
        why: of a failure, its last line.
    """

    state: State
    why: str = ""


def command(config: Path | str, folder: Path | str, resume: bool) -> list[str]:
    """The command that trains a member: begins it, or goes on with it.

    Args:
        config: its YAML file.
        folder: its run directory.
        resume: whether that is a run already.
    """
    # -P: what lies in the working directory must not be imported in place of a library
    start = [sys.executable, "-P", "-m", "geomix", "train", str(config)]
    return [*start, "--resume" if resume else "--out", str(folder)]


def standing(member: Member) -> State:
    """How a member stands while this process has not started it."""
    if member.run.is_locked():
        return "running"
    if not member.begun:
        return "left"
    return "done" if member.done else "interrupted"


def refuse_others(members: Sequence[Member]) -> None:
    """Refuse folders that hold something else than these members.

    Raises:
        UserError: a line for each folder's every difference, then what to do.
    """
    mistakes = []
    for member in members:
        run = member.run
        try:
            refuse_links([run.path])
            if member.begun:
                standing(member)  # a status that cannot be read is told now
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
    """What is there that a run which was killed as it began would not have left."""
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
    """How a member's process ended.

    Args:
        member: which one.
        status: the exit status, negative for a signal; None where it is not known, on SLURM.
    """
    try:
        if member.done:
            return Outcome("done")
        state = member.run.status()["state"] if member.begun else None
    except UserError as error:
        return Outcome("failed", error.lines[0])
    asked = status in (EXIT, -signal.SIGTERM)  # the signal's own where it came before training
    if asked or (status is None and state == "interrupted"):
        return Outcome("interrupted")
    killed = f"killed by signal {-status}" if status is not None and status < 0 else ""
    return Outcome("failed", killed or last_line(member.log) or f"exit status {status}")


def last_line(log: Path) -> str:
    """The last line that is not empty; "" where nothing was printed since the last start."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if found.startswith("$ ") else found.removeprefix("geomix: ")
