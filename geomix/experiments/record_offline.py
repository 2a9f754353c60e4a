"""`geomix record`: snapshots of a run's checkpoints, equal to those recorded during training.

The recorder sees what it would have seen (`geomix.experiments.checkpoints`), so both agree to the
bit, on one machine with one thread count. Only the path between snapshots (`record.midpoints`)
needs a running training.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geomix.config.document import Document, apply_text
from geomix.config.load import mistakes_of
from geomix.config.run import RunConfig
from geomix.config.schedule import Schedule, parse
from geomix.experiments.arms import arm_of, recorder_of
from geomix.experiments.chat_templates import edited, kept_templates
from geomix.experiments.checkpoints import Log, Revisit, StoredCheckpoint
from geomix.experiments.prepare import prepared_arms
from geomix.models.load import default_device
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.runs.parts import keep_recorded, parts_of, warning
from geomix.snapshots.file import file_name, read_snapshot, write_snapshot
from geomix.training.stage import Stage
from geomix.util.environment import describe_environment
from geomix.util.errors import UserError
from geomix.util.files import write_json
from geomix.util.reading import read_json

_SAME_RECORD = {"at", "preset", "scratch", "weights"}
"""Recorder keys that may differ between snapshots of one run: they do not affect the contents."""

_MOST = 12
"""Most checkpoints that a message names."""
_LONGEST = 24
"""Most characters of a checkpoint given to `--at`."""


def record_run(
    run: RunDirectory, at: Sequence[str | int] | None, overrides: Sequence[str], log: Log
) -> None:
    """Record the checkpoints of every arm of a run.

    Args:
        run: finished or interrupted.
        at: the checkpoints, see `geomix.config.schedule.parse`; None takes every one.
        overrides: `record.key=value` texts, applied to the run's own configuration.
        log: receives a line for each snapshot once it is on disk, and for each one not made.

    Raises:
        UserError: another process writes the run, there is no such checkpoint or it is damaged, the
            data has changed, or the existing snapshots have other settings.
    """
    schedule = None if at is None else _schedule(at)
    known = stored_configs(run)
    with run.locked():
        arms = {}
        for name, own in known.items():
            arm = arm_of(run, name)
            if not arm.resolved_file.is_file():
                log(f"{arm.path}: not begun yet")
                continue
            arms[name] = _with(own, overrides)
            _check_settings(arm, arms[name], own)
        for line in edited(run, arms):
            log(line)
        ready = prepared_arms(arms, default_device(), templates=kept_templates(run))
        for name, config in arms.items():
            arm = arm_of(run, name)
            with arm.locked() if name else nullcontext():
                past = Revisit(arm, config, ready, ready.prepared[name], ready.chats[name])
                _Recording(past, log).record(schedule)
            ready.loaded = None  # the first arm's θ_0


def _schedule(at: Sequence[str | int]) -> Schedule:
    for item in map(str, at):
        if len(item) > _LONGEST:
            raise UserError(f"--at: {item[:_LONGEST]}… is too long; give a step of the run")
    steps = [int(i) if isinstance(i, str) and i.isascii() and i.isdecimal() else i for i in at]
    try:
        return parse(steps)
    except ValueError as error:
        raise UserError(str(error).replace("record.at:", "--at:")) from None


def _with(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the run's configuration with recording, and with `--set` applied."""
    values = config.model_dump(mode="json", by_alias=True)
    anew = any(
        text.startswith("record.preset=") for text in overrides
    )  # it fills keys that are not given
    document = Document({**values, "record": {} if anew else values["record"] or {}})
    for text in overrides:
        if not text.startswith("record.") or text.startswith("record.at"):
            advice = "--at says when" if text.startswith("record.at") else "the run is what it is"
            raise UserError(f"--set {text}: only what is recorded can be set, record.…; {advice}")
        apply_text(document, text)
    try:
        return RunConfig.model_validate(document.values)
    except ValidationError as error:
        raise UserError(*mistakes_of(document, error, RunConfig)) from None


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that determine the contents of a snapshot."""
    assert config.record is not None
    return config.record.model_dump(mode="json", exclude=_SAME_RECORD)


def _settings_file(arm: RunDirectory) -> Path:
    """Return the file with the settings of an arm's offline recording."""
    return arm.probes_file.with_name("settings.json")


def _check_settings(arm: RunDirectory, config: RunConfig, own: RunConfig) -> None:
    """Reject a mix of snapshots with different settings in one folder.

    Raises:
        UserError: existing snapshots, or those that a resumed run will make, have other settings.
    """
    file, snapshots = _settings_file(arm), arm.snapshots()
    unfinished = own.record is not None and arm.status()["state"] != "done"
    if not snapshots and not unfinished:
        return
    if file.exists():
        known = read_json(file)
    elif own.record is not None:
        known = _settings(own)
    else:
        raise UserError(
            f"{arm.snapshot_folder}: holds snapshots that this run did not make; move them away"
        )
    asked = _settings(config)
    lines = [
        f"{arm.path}: record.{key} was {known.get(key)!r} for its snapshots, is {asked.get(key)!r}"
        for key in dict.fromkeys([*known, *asked])
        if known.get(key) != asked.get(key)
    ]
    if lines:
        advice = f"leave out --set, or move {arm.snapshot_folder} away"
        raise UserError(*lines, f"{arm.path}: {advice}")


@dataclass(frozen=True, slots=True)
class _Recording:
    """Recording of one arm's missing snapshots."""

    past: Revisit
    log: Log

    def record(self, schedule: Schedule | None) -> None:
        """Write the requested snapshots that do not exist."""
        arm, stages = self.past.arm, self.past.stages()
        checkpoints = self.past.checkpoints(self.log)
        if schedule is not None:
            checkpoints = _chosen(arm, schedule, checkpoints, stages)
        left = [checkpoint for checkpoint in checkpoints if not self._there(checkpoint)]
        if left and not arm.snapshots():
            arm.probes_file.unlink(missing_ok=True)  # of other settings, if of any
        if left:
            write_json(_settings_file(arm), _settings(self.past.config))
            self._keep_environment([self._file(checkpoint).name for checkpoint in left])
        for checkpoint in left:
            self._snapshot(checkpoint, stages[checkpoint.stage])

    def _keep_environment(self, snapshots: Sequence[str]) -> None:
        """Store the environment of the snapshots; warn if the run was trained in another."""
        arm, now = self.past.arm, describe_environment(default_device(), 1)
        warnings = [warning(f"{arm.path}: recorded", part, now) for part in parts_of(arm)]
        for line in dict.fromkeys(filter(None, warnings)):
            self.log(line)
        keep_recorded(arm.probes_file.with_name("env.json"), now, snapshots)

    def _there(self, checkpoint: StoredCheckpoint) -> bool:
        """Return whether a checkpoint is already recorded, and report it."""
        path = self._file(checkpoint)
        if not path.exists():
            return False
        read_snapshot(path, activations=False)  # a damaged one is reported
        self.log(f"{path}: there already")
        return True

    def _snapshot(self, checkpoint: StoredCheckpoint, stage: Stage) -> None:
        """Restore the model, and write the recorder's snapshot."""
        past, path = self.past, self._file(checkpoint)
        loaded, event = past.event(checkpoint, stage)
        recorder = recorder_of(past.arm, past.config, past.prepared.probes, past.chat, loaded)
        write_snapshot(path, recorder.snapshot(event))
        self.log(str(path))

    def _file(self, checkpoint: StoredCheckpoint) -> Path:
        return self.past.arm.snapshot_folder / file_name(checkpoint.stage, checkpoint.step)


def _chosen(
    arm: RunDirectory,
    schedule: Schedule,
    checkpoints: Sequence[StoredCheckpoint],
    stages: Sequence[Stage],
) -> list[StoredCheckpoint]:
    """Return the checkpoints that a schedule requests.

    Raises:
        UserError: it requests a step that has no checkpoint.
    """
    there = {(one.stage, one.step): one for one in checkpoints}
    ends = {one.stage: one.step for one in checkpoints if one.last}
    wanted: set[tuple[int, int]] = set()
    if schedule.boundaries:
        wanted |= {(0, 0), *ends.items()}
    spaced = Schedule(log=schedule.log, every=schedule.every)
    missing: list[str] = []
    for stage in stages[: _begun(ends, len(stages))]:
        most = ends.get(stage.index, stage.steps)  # a rule may have ended it earlier
        asked = {(stage.index, s) for s in spaced.steps_of(stage.index, stage.steps) if s <= most}
        wanted |= asked
    for step in schedule.steps:
        found = {position for position in there if position[1] == step}
        wanted |= found
        missing += [] if found else [f"step {step}"]
    missing = [
        *missing,
        *(str(StoredCheckpoint(*position)) for position in sorted(wanted - set(there))),
    ]
    if missing:
        raise UserError(
            f"{arm.path}: no checkpoint at {_some(missing)}; there are {_some(checkpoints)}"
        )
    return [one for one in checkpoints if (one.stage, one.step) in wanted]


def _begun(ends: Collection[int], stages: int) -> int:
    """Return the number of stages that have started: those that ended, and the next."""
    return min(len(ends) + 1, stages)


def _some(items: Sequence[object]) -> str:
    shown = [str(item) for item in items[:_MOST]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
