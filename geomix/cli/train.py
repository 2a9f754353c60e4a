"""`geomix train` once its configuration is read: start or resume the run, and report on it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from geomix.cli.progress import shown
from geomix.cli.report import Nothing, Quiet, Report, json_lines
from geomix.cli.show import not_learnt, retention_table
from geomix.config.load import Experiment
from geomix.experiments.run import resume_experiment, run_experiment
from geomix.models.load import quiet_libraries
from geomix.runs.directory import open_run
from geomix.util.console import LastingConsole
from geomix.util.signals import asked_to_end

How = Literal["shown", "quiet", "json", "silent"]
"""Recipient of the report: people, scripts, programs, or nobody if another process prints."""


def launch(experiment: Experiment | None, folder: Path | None, how: How, *, resume: bool) -> None:
    """Train, and print a report.

    Args:
        experiment: the configuration; None on resume uses the run's own.
        folder: of the run; None creates one.
        how: recipient of the report.
        resume: whether the run exists, and resumes.

    Raises:
        Interrupted: the process was asked to end; the run can be resumed.
        UserError: the configuration, data or model cannot be used, or the folder is no run.
    """
    quiet_libraries()
    console = LastingConsole()
    report: AbstractContextManager[Report]
    if how == "json":
        report = json_lines()
    elif how == "shown":
        report = shown(console, _arms(experiment, folder))
    else:
        report = nullcontext(Quiet() if how == "quiet" else Nothing())
    with report as to, asked_to_end() as stop:
        lines = (to.log, to.warn, to.begin)
        if resume:
            assert folder is not None
            run = resume_experiment(folder, to.arm, stop, experiment, *lines)
        else:
            assert experiment is not None
            run = run_experiment(experiment, folder, to.arm, stop, *lines)
    if how == "shown":
        console.print(retention_table(run, whole=False))
        for line in not_learnt(run):
            console.print(f"warning: {line}", soft_wrap=True)
        recorded = any(arm.snapshots() for arm in run.arms)
        then = f"next: geomix {'analyze grad-angle' if recorded else 'show'} {run.path}"
        console.print(then, soft_wrap=True)


def _arms(experiment: Experiment | None, folder: Path | None) -> list[str]:
    if experiment is not None:
        return list(experiment.arms)
    assert folder is not None
    return open_run(folder).resolved().get("arms") or [""]
