"""Interface of an analysis: measured results, with their tables, findings and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import NoOptions
from geomix.util.reading import without_nan

if TYPE_CHECKING:
    from rich.console import RenderableType

    from geomix.runs.directory import RunDirectory

Log = Callable[[str], object]
"""Receiver of progress lines."""

Row = Mapping[str, Any]

Result = TypeVar("Result")
Asked = TypeVar("Asked")


class Analysis(ABC, Generic[Result, Asked]):
    """Analysis of one or several runs. The first line of its docstring is its summary.

    Subclasses define `measure`, and override the driver's default treatment of tables, findings and
    figures where needed. Heavy libraries are imported in the methods that need them.
    """

    Options: ClassVar[type[Any]] = NoOptions
    """Frozen dataclass whose fields are created by `geomix.analysis.options.option`."""

    name: ClassVar[str]
    """Name of its files, with underscores."""

    def session(
        self, runs: Sequence[RunDirectory], options: Asked
    ) -> AbstractContextManager[object]:
        """Return a context for measuring and saving, for instance to keep partial results."""
        return nullcontext()

    @abstractmethod
    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Result:
        """Compute the result; nothing is written.

        Args:
            runs: opened, at least one; arms are `run.arms`.
            options: of the class `Options`.
            log: receives progress lines.

        Raises:
            UserError: the runs do not hold what it needs.
        """

    def tables(self, result: Result, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return tidy tables by the suffix of their file's name; "" is the main one."""
        return {}

    def findings(self, result: Result, options: Asked) -> Sequence[Finding]:
        """Return the answers, the most important one first."""
        return ()

    def figures(self, result: Result, options: Asked) -> Iterable[Drawn]:
        """Return the figures; a plain tuple of suffix, figure and rows also works."""
        return ()

    def facts(self, result: Result, options: Asked) -> dict[str, Any]:
        """Return the whole result as JSON can hold it."""
        tables = {
            ending or self.name: list(t) for ending, t in self.tables(result, options).items()
        }
        findings = [asdict(finding) for finding in self.findings(result, options)]
        found = {"analysis": self.name, "findings": findings, "tables": tables}
        return without_nan(found)  # type: ignore[no-any-return]

    def prefix(self, result: Result, options: Asked) -> str:
        """Return the start of its files' names, whatever the runs."""
        return self.name

    def stem(self, result: Result, options: Asked, runs: Sequence[RunDirectory]) -> str:
        """Return the common start of its files' names."""
        from geomix.analysis.replicates import suffix_of

        return self.prefix(result, options) + suffix_of([str(run.path) for run in runs])

    def save(
        self, result: Result, options: Asked, runs: Sequence[RunDirectory], log: Log
    ) -> list[Path]:
        """Write everything into the first run's folders, whose lock the caller does not hold.

        Returns:
            The files. Files of an earlier call that this one does not write are removed.
        """
        from geomix.analysis.saving import save

        return save(
            runs[0],
            self.stem(result, options, runs),
            self.facts(result, options),
            self.tables(result, options),
            self.figures(result, options),
            self.report(result, options),
            log,
        )

    def answer(
        self,
        result: Result,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Return the lines that the command prints: the question, each finding, the files."""
        from geomix.analysis.saving import answer

        stem = self.stem(result, options, runs)
        return answer(self.findings(result, options), runs[0], stem, files)

    def report(self, result: Result, options: Asked) -> RenderableType:
        """Return all tables and notes behind the answer, for `--full` and the text file."""
        from geomix.analysis.saving import report

        return report(self.findings(result, options), self.tables(result, options))
