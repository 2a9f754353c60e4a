"""Runs an analysis: opens the runs, measures, saves, and prints the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from geomix.analysis.base import Analysis, Result, Say
from geomix.runs.directory import RunDirectory, newest_run, open_run
from geomix.util.progress import telling
from geomix.util.terminal import echo_json


def opened(folders: Sequence[Path]) -> list[RunDirectory]:
    """The runs that a command names; without any, the newest one under runs/."""
    return [open_run(folder) for folder in folders] or [newest_run()]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What an analysis gave, and the files that it wrote.

    Attributes:
        analysis: which.
        options: its own.
        runs: that it is of.
        result: as `measure` gave it.
        files: all that were written.
    """

    analysis: Analysis[Result, Any]
    options: Any
    runs: Sequence[RunDirectory]
    result: Result
    files: list[Path]


def run(
    analysis: Analysis[Result, Any],
    runs: Sequence[RunDirectory],
    options: Any,
    say: Say = lambda _: None,
) -> Outcome[Result]:
    """Measure and save.

    Args:
        analysis: which.
        runs: opened, at least one.
        options: of the class `analysis.Options`.
        say: is told of what takes a while.

    Raises:
        UserError: the runs do not hold what the analysis needs.
    """
    with analysis.session(runs, options):
        result = analysis.measure(runs, options, say)
        files = analysis.save(result, options, runs, say)
    return Outcome(analysis, options, runs, result, files)


def command(
    analysis: Analysis[Any, Any],
    runs: Sequence[RunDirectory],
    options: Any,
    *,
    as_json: bool = False,
    full: bool = False,
) -> None:
    """The body of `geomix analyze NAME`.

    Args:
        analysis: which.
        runs: opened.
        options: its own.
        as_json: whether the whole result is printed as JSON, and nothing else.
        full: whether all tables and notes follow the answer.
    """
    with telling() as say:
        done = run(analysis, runs, options, say)
    result, files = done.result, done.files
    if as_json:
        echo_json(analysis.facts(result, options))
        return
    from geomix.util.console import Console

    console = Console()
    for line in analysis.answer(result, options, runs, files, full):
        console.print(line, soft_wrap=True)
    if full:
        console.print()
        console.print(analysis.report(result, options))
        console.print()
        for file in files:
            console.print(str(file), soft_wrap=True)
