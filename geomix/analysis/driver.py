"""Driver of analyses: opens the runs, measures, saves, and prints the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from geomix.analysis.base import Analysis, Log, Result
from geomix.runs.directory import RunDirectory
from geomix.util.progress import telling
from geomix.util.terminal import echo_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from geomix.analysis.findings import Finding


@dataclass(frozen=True, repr=False)
class Outcome(Generic[Result]):
    """Outcome of an analysis, with the files that it wrote.

    Attributes:
        analysis: the analysis.
        options: its options.
        runs: the analysed runs.
        result: returned by `measure`.
        files: all that were written.
    """

    analysis: Analysis[Result, Any]
    options: Any
    runs: Sequence[RunDirectory]
    result: Result
    files: list[Path]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tidy tables by name; "" is the main one."""
        import pandas as pd

        found = self.analysis.tables(self.result, self.options)
        return {name: pd.DataFrame(list(rows)) for name, rows in found.items()}

    @property
    def findings(self) -> Sequence[Finding]:
        """Answers, the most important one first."""
        return self.analysis.findings(self.result, self.options)

    @cached_property
    def figures(self) -> dict[str, Shown]:
        """Figures by name, which display themselves in a notebook; "" is the main one."""
        found = self.analysis.figures(self.result, self.options)
        return {one[0].strip("_"): Shown(one[1]) for one in found}

    @property
    def answer(self) -> str:
        """Lines that the command prints."""
        given = (self.result, self.options, self.runs, self.files, False)
        return "\n".join(self.analysis.answer(*given))

    def __repr__(self) -> str:
        """Return the answer."""
        return self.answer


@dataclass(frozen=True)
class Shown:
    """A figure that displays itself in a notebook.

    Attributes:
        figure: matplotlib's, for changes.
    """

    figure: Figure

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        from geomix.figures.style import style

        to = BytesIO()
        with style():
            self.figure.savefig(to, format="png", dpi=150)
        return to.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the figure in the format of the file's suffix."""
        from geomix.figures.style import style

        with style():
            self.figure.savefig(path)


def run(
    analysis: Analysis[Result, Any],
    runs: Sequence[RunDirectory],
    options: Any,
    log: Log = lambda _: None,
) -> Outcome[Result]:
    """Measure and save.

    Args:
        analysis: the analysis.
        runs: opened, at least one.
        options: of the class `analysis.Options`.
        log: receives progress lines.

    Raises:
        UserError: the runs do not hold what the analysis needs.
    """
    with analysis.session(runs, options):
        result = analysis.measure(runs, options, log)
        files = analysis.save(result, options, runs, log)
    return Outcome(analysis, options, runs, result, files)


def command(
    analysis: Analysis[Any, Any],
    runs: Sequence[RunDirectory],
    options: Any,
    *,
    as_json: bool = False,
    full: bool = False,
) -> None:
    """Run an analysis and print it: the body of `geomix analyze NAME`.

    Args:
        analysis: the analysis.
        runs: opened.
        options: its options.
        as_json: whether to print the whole result as JSON, and nothing else.
        full: whether all tables and notes follow the answer.
    """
    with telling() as log:
        done = run(analysis, runs, options, log)
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
