"""Experiment trackers (TensorBoard, Weights & Biases, …): a further consumer of `metrics.jsonl`.

They are accelerate's, those that its `log_with` names. No action of a tracker changes a run.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from geomix.config.run import RunConfig, flat
from geomix.runs.directory import RunDirectory
from geomix.training.engine import Progress
from geomix.util.errors import UserError
from geomix.util.files import write_text
from geomix.util.reading import expect_names

PROJECT = "geomix"
"""Project name of the run, for trackers that group runs by project."""


def check_trackers(names: Sequence[str]) -> None:
    """Reject trackers whose package is not installed.

    Raises:
        UserError: names them.
    """
    if not names:
        return
    there = [str(name) for name in _accelerate().get_available_trackers()]
    if missing := [name for name in names if name not in there]:
        packages = " ".join(name.replace("_", "-") for name in missing)
        raise UserError(
            f"trackers: {', '.join(missing)} cannot be imported here; "
            f"pip install {packages}, or leave it out of trackers"
        )


@dataclass
class Trackers:
    """Progress display that forwards the numbers of each metrics line to an arm's trackers.

    The step of a tracker is that of the run: steps of the stages before, as they were taken, and of
    this one. A tracker that raises is reported once and then left alone.

    Attributes:
        shown: the display that receives everything first.
        run: the arm's; trackers write to its `trackers/`.
        config: of the arm.
        warn: receives failures.
    """

    shown: Progress
    run: RunDirectory
    config: RunConfig
    warn: Callable[[str], object]
    _live: dict[str, Any] = field(default_factory=dict)
    _steps: dict[int, int] = field(default_factory=dict)
    _started: bool = False

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Start the trackers on the first call, after the existing lines."""
        self.shown.stage(name, index, stages, steps, batch)
        if not self._started:
            self._started = True
            for line in self.run.metrics():
                self._take(line)
            for tracker in self.config.trackers:
                self._start(tracker)

    def logged(self, line: Mapping[str, Any]) -> None:
        """Forward a line of `metrics.jsonl`."""
        self.shown.logged(line)
        step = self._take(line)
        values = numbers(line)
        for name in list(self._live):
            self._do(name, partial(self._live[name].log, values, step=step))

    def finish(self) -> None:
        """Finish all trackers."""
        for name in list(self._live):
            self._do(name, self._live[name].finish)

    def _take(self, line: Mapping[str, Any]) -> int:
        """Return the run's step at a line."""
        stage: int = line["stage"]
        step: int = line["step"]
        self._steps[stage] = max(step, self._steps.get(stage, 0))
        return step + sum(steps for before, steps in self._steps.items() if before < stage)

    def _start(self, name: str) -> None:
        folder = self.run.path / "trackers"
        resumed = bool(self._steps)
        options = _options(name, self.run, sum(self._steps.values()), resumed=resumed)
        kind = _accelerate().LOGGER_TYPE_TO_CLASS[name]
        where = [str(folder)] if kind.requires_logging_directory else []

        def start() -> None:
            folder.mkdir(exist_ok=True)
            tracker = kind("tensorboard" if name == "tensorboard" else PROJECT, *where, **options)
            tracker.main_process_only = False  # only a process with a Progress calls it
            self._live[name] = tracker
            tracker.start()
            if not resumed:
                tracker.store_init_configuration(_plain(self.config))

        self._do(name, start)

    def _do(self, name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # a tracker raises anything
            self._live.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warn(f"tracker {name} failed, the run goes on without it: {reason:.300}")


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a metrics line by name: `train/loss`, `stage_1/D_A/exact_match` etc.

    Stages count from 1, as everywhere users see them; `stage0/…` of older versions counted from 0.
    """
    known = {"event", "stage", "step", "moment", "set"}
    event = line["event"]
    if event == "step":
        prefix = "train"
    else:
        prefix = f"stage_{line['stage'] + 1}/{line['set'] if event == 'evaluation' else event}"
    found: dict[str, float] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, f"{name}/{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value

    walk({key: value for key, value in line.items() if key not in known}, prefix)
    return found


def _accelerate() -> Any:
    """Return accelerate's trackers, without the process state that an `Accelerator` creates.

    That may start a process group and set the number of threads, which changes the results.
    """
    from accelerate import tracking

    tracking.logger = logging.getLogger(tracking.__name__)  # its own asks for that state
    return tracking


def _plain(config: RunConfig) -> dict[str, int | float | str]:
    """Return the configuration as trackers take it: numbers and texts by dotted key."""
    return {
        key: value if isinstance(value, int | float | str) else json.dumps(value)
        for key, value in flat(config).items()
    }


def _options(name: str, run: RunDirectory, step: int, *, resumed: bool) -> dict[str, Any]:
    """Return options that make a tracker write into the run's folder, and resume there."""
    folder = run.path / "trackers"
    if name == "tensorboard":  # purges lines logged after the last checkpoint
        return {"purge_step": step + 1} if resumed else {}
    if name == "wandb":
        file = folder / "wandb-id"
        if not file.exists():
            write_text(file, secrets.token_hex(8) + "\n")
        known = file.read_text(encoding="utf-8").strip()
        expect_names(file, "id", [known])  # wandb names a folder so
        return {"dir": str(folder), "name": run.name, "id": known, "resume": "allow"}
    return {"run_name": run.name} if name == "mlflow" else {}


@contextmanager
def tracked(
    shown: Callable[[str], Progress],
    arms: Mapping[str, tuple[RunDirectory, RunConfig]],
    warn: Callable[[str], object],
) -> Iterator[Callable[[str], Progress]]:
    """Forward every arm's progress within the block to its trackers.

    Args:
        shown: returns an arm's progress, by its name.
        arms: their folders and configurations; none in a process that writes nothing.
        warn: receives failures of trackers.
    """
    opened: list[Trackers] = []

    def progress(name: str) -> Progress:
        for trackers in opened:
            trackers.finish()
        if name not in arms or not arms[name][1].trackers:
            return shown(name)
        run, config = arms[name]
        opened[:] = [Trackers(shown(name), run, config, warn)]
        return opened[0]

    try:
        yield progress
    finally:
        for trackers in opened:
            trackers.finish()
