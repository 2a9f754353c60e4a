"""The command `geomix sweep`; it imports its dependencies when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomix.util.terminal import echo, echo_json

if TYPE_CHECKING:
    from geomix.studies.local import Executor
    from geomix.studies.member import Outcome
    from geomix.studies.sweep_file import ExecutorName, Study
    from geomix.util.console import Console


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--executor", type=click.Choice(["local", "slurm"]), help="Processes here, or jobs [local]."
)
@click.option("--jobs", type=click.IntRange(1), help="Most members at once [1; on SLURM all].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For all members.")
@click.option("--dry-run", is_flag=True, help="Print the members and their states; run nothing.")
@click.option("--no-wait", is_flag=True, help="Submit to SLURM and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def sweep(
    study: Path,
    executor: ExecutorName | None,
    jobs: int | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Train every run of a study, here or on a SLURM cluster.

    STUDY is a YAML file: `base:` a configuration or preset, `grid:`, `runs:` or `seeds:` the
    variations. Complete members are not run again, so the same command resumes an interrupted sweep
    (status 75), or retries failed members (status 1).
    """
    from geomix.data.sources import SOURCES
    from geomix.studies.member import reject_others
    from geomix.studies.sweep_file import load_study
    from geomix.util.console import Console, LastingConsole
    from geomix.util.errors import UserError

    loaded = load_study(study, overrides, tuple(SOURCES))
    where = executor or loaded.config.executor
    if no_wait and where == "local":
        raise UserError("--no-wait: only SLURM's jobs go on alone; say --executor slurm")
    reject_others(loaded.members)
    if dry_run:
        _print(loaded, _standing(loaded), as_json, Console())
        return
    results, status = _run(
        loaded, where, jobs or loaded.config.jobs, not no_wait, LastingConsole(stderr=as_json)
    )
    _print(loaded, results, as_json, Console())
    for line in (*_environments(loaded), *_advice(loaded, results, where)):
        echo(f"geomix: {line}", err=True)
    raise click.exceptions.Exit(status)


def _standing(study: Study) -> dict[str, Outcome]:
    """Return the state of each member before anything is started."""
    from geomix.studies.member import Outcome, standing

    return {member.name: Outcome(standing(member)) for member in study.members}


def _run(
    study: Study, where: ExecutorName, jobs: int | None, wait: bool, console: Console
) -> tuple[dict[str, Outcome], int]:
    """Run the study; return each member's state, and the exit status."""
    from geomix.runs.directory import RunDirectory
    from geomix.studies.board import Board
    from geomix.studies.runner import run_members
    from geomix.util.errors import UserError
    from geomix.util.files import write_text
    from geomix.util.links import reject_links
    from geomix.util.signals import EXIT, asked_to_end

    own = RunDirectory(study.folder / "_sweep")  # no member's name begins like that
    reject_links([own.path, *own.path.glob("**/*")])
    try:
        own.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{own.path}: cannot be made ({error.strerror})") from None
    with own.locked(), asked_to_end() as stop:
        executor = _executor(study, where, jobs)
        write_text(own.path / "study.yaml", study.text)
        line = f"{study.name}: {len(study.members)} members → {study.folder}"
        console.print(line, soft_wrap=True)
        with Board(console, study.members) as board:
            results = run_members(study.members, executor, stop, board, wait)
        states = {result.state for result in results.values()}
        if stop():
            return results, EXIT
        return results, 1 if "failed" in states else EXIT if "interrupted" in states else 0


def _executor(study: Study, where: ExecutorName, jobs: int | None) -> Executor:
    from geomix.studies.local import Local
    from geomix.studies.slurm import Slurm, queued
    from geomix.util.errors import UserError

    folder = study.folder / "_sweep" / "slurm"
    if where == "slurm":
        return Slurm(folder, study.name, study.config.slurm, jobs)
    if waiting := queued(folder):
        these = ", ".join(sorted(set(waiting.values()))[:5])
        raise UserError(f"{study.folder}: jobs {these} are in SLURM's queue; wait, or scancel them")
    return Local(jobs or 1)


def _print(study: Study, results: dict[str, Outcome], as_json: bool, console: Console) -> None:
    from geomix.studies.board import facts, results_table

    if as_json:
        echo_json(facts(study.members, results))
    else:
        console.print(results_table(study.members, results))


def _environments(study: Study) -> list[str]:
    """Return a line if members that are compared were computed in different environments."""
    from geomix.runs.parts import mixture, parts_of

    begun = [member for member in study.members if member.begun]
    line = mixture({member.name: parts_of(member.run) for member in begun})
    return [] if line is None else [f"{study.folder}: members {line}"]


def _advice(study: Study, results: dict[str, Outcome], where: ExecutorName) -> list[str]:
    """Return advice if something is not complete."""
    lines = [
        f"{member.run.path}: failed: {results[member.name].why}; see {member.log}"
        for member in study.members
        if results[member.name].state == "failed"
    ]
    states = [result.state for result in results.values()]
    away = sum(state in ("queued", "running") for state in states)
    if away and where == "slurm":
        lines.append(f"{away} members are with SLURM and go on; the same command waits for them")
    missing = len(states) - states.count("done") - away
    if missing:
        lines.append(f"{missing} of {len(states)} not complete; the same command goes on with them")
    return lines
