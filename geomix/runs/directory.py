"""A run on disk: its layout, its locks, and how to find it again.

runs/2026-11-20-demo/
config.yaml      as given             resolved.json   every default filled in, and its hash
env.json         versions, device …   status.json     running | done | failed, stage, step
base.json        θ_0 and its hash
metrics.jsonl    one line a step or evaluation         lock      held while a process writes
stages/0-kvr/    data.json   examples.jsonl   eval/epoch-003.jsonl   checkpoints/final/
                 weights/step-000004/ where `record.weights` keeps them
records/         probes.json   snapshots/stage0-step000120.h5
analysis/  figures/            made by `geomix analyze`; analysis.lock is held while it saves
arms/plain/ …                  instead of stages and records where the configuration has arms:
each arm is a whole run directory of its own
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from geomix.util.errors import Interrupted, UserError
from geomix.util.files import write_json
from geomix.util.links import open_lock, reject_linked_folders, shorten
from geomix.util.nearby import close_to
from geomix.util.reading import all_of, check_ordinary, expect, expect_names, parse_json, read_json

DEFAULT_ROOT = Path("runs")

_PATIENCE = 0.5
"""Seconds that a writer waits for the lock: a reader that checks it holds it for an instant."""

_SNAPSHOT = re.compile(r"stage(0|[1-9][0-9]?)-step([0-9]{6}|[1-9][0-9]{6,11})\.h5")
"""Pattern of the names from `geomix.snapshots.file.file_name`; no other spelling of the numbers."""


def snapshot_position(name: str) -> tuple[int, int] | None:
    """Return the stage and step of a snapshot's file name; None for any other file."""
    found = _SNAPSHOT.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True, eq=False)
class RunDirectory:
    """One run directory. Its paths are defined whether or not they exist yet."""

    path: Path

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same folder, even if one is the public `geomix.Run`."""
        return isinstance(other, RunDirectory) and self.path == other.path

    def __hash__(self) -> int:
        """Return the path's hash."""
        return hash(self.path)

    @property
    def name(self) -> str:
        """Name of the folder; for an arm, the arm's name."""
        return self.path.name or self.path.absolute().name  # "." has no name of its own

    @property
    def config_file(self) -> Path:
        """Configuration as given."""
        return self.path / "config.yaml"

    @property
    def resolved_file(self) -> Path:
        """Configuration with every default filled in; this file makes a folder a run."""
        return self.path / "resolved.json"

    @property
    def environment_file(self) -> Path:
        """Versions, commit and device."""
        return self.path / "env.json"

    @property
    def base_file(self) -> Path:
        """Identity of the θ_0 that the run started with."""
        return self.path / "base.json"

    @property
    def status_file(self) -> Path:
        """State, stage and step."""
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        """Metrics, one JSON line a step or evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def snapshot_folder(self) -> Path:
        """Folder of the snapshots, one HDF5 file each."""
        return self.path / "records" / "snapshots"

    @property
    def probes_file(self) -> Path:
        """Texts of the probe sets, in the order of the snapshots' examples."""
        return self.path / "records" / "probes.json"

    @property
    def analysis_folder(self) -> Path:
        """Results of `geomix analyze`."""
        return self.path / "analysis"

    @property
    def figure_folder(self) -> Path:
        """Figures and the CSV behind each."""
        return self.path / "figures"

    def stage_folder(self, index: int, name: str) -> Path:
        """Return the folder of one stage."""
        return self.path / "stages" / f"{index}-{name}"

    def snapshots(self) -> list[Path]:
        """Return the snapshot files in the order of stage and step; other files are ignored."""
        found = [(snapshot_position(file.name), file) for file in self.snapshot_folder.glob("*")]
        return [
            file for _, file in sorted((position, file) for position, file in found if position)
        ]

    @property
    def arms(self) -> list[Self]:
        """Arms in the configuration's order; a run without arms is its own single arm."""
        names = self.resolved().get("arms")
        return [type(self)(self.path / "arms" / name) for name in names] if names else [self]

    def resolved(self) -> dict[str, Any]:
        """Return the resolved configuration.

        Raises:
            UserError: the file is missing, is not JSON, lacks what every command relies on, or
                names an arm or a stage so that its path would leave the run.
        """
        found = read_json(self.resolved_file)
        config, arms = found.get("config"), found.get("arms")
        config = config if isinstance(config, dict) else {}
        expect(self.resolved_file, "config.stages, a list", all_of(config.get("stages"), dict))
        expect(self.resolved_file, "config.seed, a number", isinstance(config.get("seed"), int))
        expect(self.resolved_file, "arms, null or names", arms is None or all_of(arms, str))
        expect_names(self.resolved_file, "arms", arms or [])
        stages = [stage.get("name") for stage in config["stages"]]
        expect_names(self.resolved_file, "config.stages", filter(None, stages))
        return found

    def status(self) -> dict[str, Any]:
        """Return state, stage and step; a run without a writer is not `running`.

        Raises:
            UserError: the file is missing, is not JSON, lacks the state or has an invalid arm.
        """
        status = read_json(self.status_file)
        expect(self.status_file, "state, a text", isinstance(status.get("state"), str))
        at = [status.get("stage", 0), status.get("step", 0)]
        expect(self.status_file, "stage and step, numbers", all_of(at, int))
        expect_names(self.status_file, "arm", [status["arm"]] if status.get("arm") else [])
        if status["state"] == "running" and not self.is_locked():
            status["state"] = "interrupted"
        return status

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of `metrics.jsonl`, without a last one that is still being written.

        Raises:
            UserError: a line is not a JSON object.
        """
        if not self.metrics_file.exists():
            return
        check_ordinary(self.metrics_file)
        with self.metrics_file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    yield parse_json(f"{self.metrics_file}:{number}", line)

    def steps_done(self) -> dict[int, int]:
        """Return the optimiser steps done in each stage, by its index; for a reused one, its own.

        Raises:
            UserError: a line of `metrics.jsonl` is not as geomix writes it.
        """
        done: dict[int, int] = {}
        for line in self.metrics():
            if line.get("event") == "step" or line.get("moment") == "end":
                at: list[Any] = [line.get("stage"), line.get("step")]
                expect(self.metrics_file, "stage and step, numbers", all_of(at, int))
                done[at[0]] = max(at[1], done.get(at[0], 0))
        return done

    def metrics_saved(self) -> int:
        """Flush `metrics.jsonl` to disk, which appending does not; return its bytes."""
        if not self.metrics_file.exists():
            return 0
        with self.metrics_file.open("rb") as file:
            os.fsync(file)
            return os.fstat(file.fileno()).st_size

    def truncate_metrics(self, size: int) -> None:
        """Drop the lines after the first `size` bytes: their steps will be repeated.

        Raises:
            UserError: there are fewer, so that lines of finished steps are missing.
        """
        found = self.metrics_file.stat().st_size if self.metrics_file.exists() else 0
        if found < size:
            raise UserError(
                f"{self.metrics_file}: {found} bytes of the {size} that it had at the last "
                "checkpoint; restore it or begin a new run"
            )
        if found > size:
            shorten(self.metrics_file, size)

    def is_locked(self) -> bool:
        """Return whether a process holds the run's lock."""
        lock = self.path / "lock"
        if not lock.exists():
            return False
        with os.fdopen(os.open(lock, os.O_RDONLY | os.O_NONBLOCK)) as handle:  # no wait for a pipe
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # readers share it
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for writing; the kernel releases the lock however the process ends.

        Raises:
            UserError: another process holds it, or a link is in the place of a file to write.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_lock(self.path / "lock")) as handle:
            deadline = time.monotonic() + _PATIENCE
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise UserError(f"{self.path}: another process is writing this run")
                time.sleep(_PATIENCE / 20)
            reject_linked_folders(self.path)
            yield

    @contextmanager
    def saving(self, log: Callable[[str], object] = lambda _: None) -> Iterator[None]:
        """Lock the results of `geomix analyze`, whose files belong together; wait for the lock.

        This is not the run's own lock: a run can be analysed while it trains.

        Args:
            log: receives a line if another process holds the lock.

        Raises:
            UserError: a link is in the place of a file to write.
        """
        with os.fdopen(open_lock(self.path / "analysis.lock")) as handle:
            if not _try_lock(handle):
                log(f"{self.path}: another process is saving an analysis; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            reject_linked_folders(self.path)
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock a run's folder, and keep its status true however the block ends."""
        with self.locked(), self.reporting():
            yield

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Keep the status true however the block ends; the caller holds the lock."""
        self.set_status("running")
        try:
            yield
        except (KeyboardInterrupt, Interrupted):
            self.set_status("interrupted")
            raise
        except BaseException as error:
            with suppress(OSError):  # on a full disk; the original error is the one to report
                self.set_status("failed", why=str(error) or type(error).__name__)
            raise
        self.set_status("done")

    def set_status(self, state: str, **details: Any) -> None:
        """Replace `status.json`."""
        write_json(self.status_file, {"state": state, "pid": os.getpid(), **details})


def scores_file(stage_folder: Path, moment: str, epoch: int, step: int) -> Path:
    """Return an evaluation's score file: `start`, `epoch-003` or `step-000123`, with `.jsonl`."""
    when = {"start": "start", "step": f"step-{step:06d}"}.get(moment, f"epoch-{epoch:03d}")
    return stage_folder / "eval" / f"{when}.jsonl"


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_run(path: str | Path) -> RunDirectory:
    """Open a finished, running or interrupted run.

    Args:
        path: the run's folder.

    Raises:
        UserError: there is no such folder, it is not a run, or its name is not text.
    """
    run = RunDirectory(Path(path))
    try:
        str(path).encode()
    except UnicodeEncodeError:  # neither HDF5 nor JSON can hold it
        raise UserError(f"{path}: a name that is not UTF-8; rename the folder") from None
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{path}: a file; give the folder of a run")
    if not run.path.is_dir():
        near = close_to(run.path, folders=True)
        guess = (
            f"did you mean '{near}'?"
            if near
            else f"`geomix train` makes a run under {DEFAULT_ROOT}/"
        )
        raise UserError(f"{path}: no such folder; {guess}")
    if not run.resolved_file.is_file():
        raise UserError(f"{path}: not a run of geomix (it holds no {run.resolved_file.name})")
    return run


def newest_run(root: Path = DEFAULT_ROOT) -> RunDirectory:
    """Return the run under `root` that was started last.

    Raises:
        UserError: there is none.
    """
    found = [folder for folder in root.glob("*") if RunDirectory(folder).resolved_file.is_file()]
    if not found:
        raise UserError(f"{root}/: no run here; `geomix train` makes one, or name a run's folder")
    return RunDirectory(
        max(found, key=lambda folder: RunDirectory(folder).resolved_file.stat().st_mtime_ns)
    )
