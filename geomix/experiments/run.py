"""From a configuration to runs on disk: each arm planned, trained and recorded."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomix.config.load import Experiment
from geomix.config.run import RunConfig
from geomix.data.chat import moment
from geomix.data.remarks import remarks
from geomix.experiments.arms import Training, arm_of, position_of, resolve
from geomix.experiments.chat_templates import edited, kept_templates
from geomix.experiments.prepare import Ready, prepared_arms
from geomix.models.distributed import Workers, lost, workers_here
from geomix.runs.configs import differences, stored_configs
from geomix.runs.directory import DEFAULT_ROOT, RunDirectory, open_run
from geomix.runs.named_arms import as_stored, with_named_arms
from geomix.runs.parts import Environment, keep_part, parts_before, warning
from geomix.training.checkpoint import Checkpoint, checkpoint_of, described_checkpoint
from geomix.training.checkpoint_rotation import newest, tidy
from geomix.training.engine import Progress
from geomix.training.reuse import check_other_runs
from geomix.training.trackers import check_trackers, tracked
from geomix.util.environment import describe_environment
from geomix.util.errors import UserError
from geomix.util.files import write_text


def new_folder(name: str, root: Path = DEFAULT_ROOT) -> Path:
    """Return a folder for a new run: date and name, numbered if it exists."""
    base = f"{datetime.date.today().isoformat()}-{name}"
    number, folder = 1, root / base
    while folder.exists():
        number += 1
        folder = root / f"{base}-{number}"
    return folder


def check_free(folder: Path) -> None:
    """Reject a folder that is not empty, or that cannot be a folder.

    Raises:
        UserError: it is a file, or not empty.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"--out {str(folder)!r}: not UTF-8; name another folder") from None
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: a file; name a folder that is not there yet")
    if folder.is_dir() and any(folder.iterdir()):
        begun = RunDirectory(folder).resolved_file.is_file()
        further = f" (or go on with it: --resume {folder})" * begun
        raise UserError(f"--out {folder}: not empty; name a folder that is not there yet{further}")


def run_experiment(
    experiment: Experiment,
    folder: Path | None,
    display: Callable[[str], Progress],
    stop: Callable[[], bool] = bool,
    log: Callable[[str], object] = str,
    warn: Callable[[str], object] | None = None,
    begun: Callable[[Path], object] = str,
) -> RunDirectory:
    """Train every arm of an experiment into `folder`.

    All possible mistakes in the data and the models are found before the folder is created.

    Args:
        experiment: the validated configuration.
        folder: a new run directory; None makes one under `runs/`.
        display: returns the progress display of an arm, by its name ("" for a run without arms).
        stop: whether the process was asked to end.
        log: receives the run's location, once its folder is created.
        warn: receives oddities of the data, and failures of trackers; None uses `log`.
        begun: called with the run's folder, once it is created.

    Returns:
        The finished run.

    Raises:
        Interrupted: the process was asked to end; `resume_experiment` resumes.
    """
    for config in experiment.arms.values():
        check_trackers(config.trackers)
    with _joined(experiment.arms) as workers:
        path = workers.first(lambda: _free(folder, experiment.name))
        experiment = replace(experiment, arms=with_named_arms(experiment.arms))
        check_other_runs(experiment.arms)
        ready = prepared_arms(experiment.arms, workers.device, begins=workers.first(moment))
        run = RunDirectory(Path(path))
        environment = describe_environment(workers.device, workers.world)
        with _begun(run, experiment, ready, workers, environment, log):
            workers.first(lambda: True)  # the folder exists
            begun(run.path)
            if workers.main:
                _warn_of_oddities(experiment.arms, ready, warn or log)
            with tracked(display, _with_runs(run, experiment.arms, workers), warn or log) as shown:
                training = Training(run, shown, stop, workers, environment, warn or log)
                training.arms(experiment.arms, ready, {})
    return run


def _warn_of_oddities(
    arms: Mapping[str, RunConfig], ready: Ready, warn: Callable[[str], object]
) -> None:
    """Report oddities of the data of any arm, each once."""
    found = (
        remarks(arms[name], one.plans, one.probes, one.evaluated)
        for name, one in ready.prepared.items()
    )
    for line in dict.fromkeys(line for lines in found for line in lines):
        warn(f"warning: {line}")


def _free(folder: Path | None, name: str) -> str:
    """Return the folder of a new run."""
    if folder is None:
        return str(new_folder(name))
    check_free(folder)
    return str(folder)


@contextmanager
def _begun(
    run: RunDirectory,
    experiment: Experiment,
    ready: Ready,
    workers: Workers,
    environment: Environment,
    log: Callable[[str], object],
) -> Iterator[None]:
    """Create a run's folder and lock it, in the process that writes."""
    if not workers.main:
        yield
        return
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run.path}: cannot be made ({error.strerror})") from None
    with run.locked():
        if run.resolved_file.exists():  # another process was quicker
            raise UserError(f"--out {run.path}: not empty; name a folder that is not there yet")
        with run.reporting():
            log(f"{experiment.name} → {run.path}")
            write_text(run.config_file, experiment.text)
            resolve(run, experiment.name, experiment.arms, ready.chats)
            keep_part(run, environment, _position_in(experiment.arms, {}))
            yield


@contextmanager
def _joined(arms: Mapping[str, RunConfig]) -> Iterator[Workers]:
    """Join the processes of a training; one that loses the others ends as they do."""
    workers = workers_here(next(iter(arms.values())).parallel)
    try:
        yield workers
    except RuntimeError as error:
        if workers.main or not lost(error):
            raise
        raise UserError(f"process {workers.rank}: lost the others") from None
    workers.leave()


def _with_runs(
    run: RunDirectory, arms: Mapping[str, RunConfig], workers: Workers
) -> dict[str, tuple[RunDirectory, RunConfig]]:
    """Return the arms whose metrics this process forwards to trackers: all or none."""
    return {name: (arm_of(run, name), config) for name, config in arms.items() if workers.main}


def resume_experiment(
    folder: Path,
    display: Callable[[str], Progress],
    stop: Callable[[], bool] = bool,
    experiment: Experiment | None = None,
    log: Callable[[str], object] = print,
    warn: Callable[[str], object] | None = None,
    begun: Callable[[Path], object] = str,
) -> RunDirectory:
    """Resume an interrupted run, as if it had not been interrupted.

    Args:
        folder: of the run.
        display: as in `run_experiment`.
        stop: as in `run_experiment`.
        experiment: the expected configuration, if given again; None uses the run's own.
        log: receives the position from which each arm resumes.
        warn: receives damage found, and failures of trackers; None uses `log`.
        begun: called with the run's folder, once it is known to be resumable.

    Raises:
        Interrupted: the process was asked to end again.
        UserError: the folder is no run, its configuration or data differs, or it is locked.
    """
    run = open_run(folder)
    arms = stored_configs(run)
    if experiment is not None:
        experiment = replace(experiment, arms=as_stored(experiment.arms, arms))
        if lines := differences(run, arms, experiment.arms):
            advice = "go on with --resume alone, or begin a new run with --out"
            raise UserError(*lines, f"{run.path}: {advice}")
        arms = experiment.arms  # the checkpoints' schedule may have changed
    for config in arms.values():
        check_trackers(config.trackers)
    with _joined(arms) as workers, run.locked() if workers.main else nullcontext():
        found = workers.first(lambda: _starts(run, arms, log, warn or log))
        begun(run.path)
        starts = {name: checkpoint_of(position) for name, position in found.items()}
        left = {name: arms[name] for name in starts}
        if not left and _done(run):
            return run
        environment = describe_environment(workers.device, workers.world)
        for line in _environment_changes(run, starts, environment) if workers.main else ():
            (warn or log)(line)
        templates = kept_templates(run)
        ready = prepared_arms(left, workers.device, templates=templates) if left else Ready({})
        traced = tracked(display, _with_runs(run, left, workers), warn or log)
        with run.reporting() if workers.main else nullcontext(), traced as shown:
            if left and workers.main:
                keep_part(run, environment, _position_in(arms, starts))
            training = Training(run, shown, stop, workers, environment, warn or log)
            training.arms(left, ready, starts)
    return run


def _starts(
    run: RunDirectory,
    arms: Mapping[str, RunConfig],
    log: Callable[[str], object],
    warn: Callable[[str], object],
) -> dict[str, dict[str, Any] | None]:
    """Return the position from which each remaining arm resumes, as JSON can hold it."""
    if _done(run):
        log(f"{run.path}: done already, nothing is left to train")
        return {}
    for line in edited(run, arms):
        warn(line)
    left = [name for name in arms if not _done(arm_of(run, name))]
    starts = {name: _start(arm_of(run, name), arms[name], log, warn) for name in left}
    return {name: described_checkpoint(start) for name, start in starts.items()}


def _position_in(
    arms: Mapping[str, RunConfig], starts: Mapping[str, Checkpoint | None]
) -> dict[str, Any]:
    """Return the position in a run from which its first remaining arm is trained."""
    name = next(iter(starts or arms))
    return ({"arm": name} if name else {}) | position_of(starts.get(name))


def _environment_changes(
    run: RunDirectory, starts: Mapping[str, Checkpoint | None], environment: Environment
) -> list[str]:
    """Return a line for each difference between the environments of the stored and new results."""
    if not starts:
        return []
    found: dict[str, str] = {}
    positions = [(run, _position_in({}, starts))]
    positions += [(arm_of(run, name), position_of(start)) for name, start in starts.items() if name]
    for one, position in positions:
        known = one.resolved_file.is_file() and one.environment_file.is_file()
        parts = parts_before(one, position) if known else []
        line = warning(f"{one.path}: goes on", parts[-1], environment) if parts else None
        if line is not None:
            found.setdefault(line.partition(": ")[2], line)  # the arms seldom differ from the run
    return [f"{line}; {run.environment_file.name} keeps both" for line in found.values()]


def _done(run: RunDirectory) -> bool:
    return run.status_file.exists() and run.status()["state"] == "done"


def _start(
    arm: RunDirectory,
    config: RunConfig,
    log: Callable[[str], object],
    warn: Callable[[str], object],
) -> Checkpoint | None:
    """Return and report an arm's checkpoint to resume from; remove what a killed process left."""
    names = [config.stage_name(index) for index in range(len(config.stages))]
    folders = [arm.stage_folder(index, name) for index, name in enumerate(names)]
    start, skipped = newest(folders)
    tidy(folders)
    for line in skipped:
        warn(f"skipped: {line}")
    log(f"{arm.path}: {_described(start, names)}")
    return start


def _described(start: Checkpoint | None, names: list[str]) -> str:
    if start is None:
        return "begins anew"
    at = start.position
    if at.stage == len(names):
        return "all stages are trained"
    if at.step == 0:
        return f"goes on with stage {at.stage + 1}, {names[at.stage]}"
    return f"goes on in stage {at.stage + 1}, {names[at.stage]}, after step {at.step}"
