"""`geomix analyze grad-angle`: angles between gradients, by depth, along training, by example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.grad_angle.asked import Asked

if TYPE_CHECKING:
    from rich.console import RenderableType

    from geomix.analysis.grad_angle.examples import Tables
    from geomix.analysis.grad_angle.result import GradAngle
    from geomix.analysis.partial_results import Unfinished
    from geomix.runs.directory import RunDirectory

    Measured = tuple[GradAngle, dict[str, Tables]]


class GradAngleAnalysis(Analysis["Measured", Asked]):
    """Measure cosines between gradients of D_A, D_B, D_M, a held-out set, and the update.

    RUN is a run's folder; the default is the newest under runs/. Runs that differ only in their
    seed give means with an interval.
    """

    name = "grad_angle"
    Options = Asked

    def __init__(self) -> None:
        self._kept: Unfinished | None = None

    @contextmanager
    def session(self, runs: Sequence[RunDirectory], options: Asked) -> Iterator[None]:
        """Keep partial results until everything is saved."""
        from geomix.analysis.partial_results import unfinished

        paths = [str(run.path.absolute()) for run in runs]
        command = {"analysis": self.name, "asked": _measured(options), "runs": paths}
        with unfinished(runs[0], command) as self._kept:
            yield

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Measured:
        """Measure the angles by arm, and those of single examples of the first run."""
        from geomix.analysis.grad_angle.examples import single_examples
        from geomix.analysis.grad_angle.measure import measured
        from geomix.analysis.partial_results import Unfinished

        kept, asked = self._kept or Unfinished(), _split(options)
        result, pasts = measured(runs, asked, log, kept)
        return result, single_examples(pasts, runs[0].arms, asked, log, kept)

    def tables(self, result: Measured, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the angles, and the pairs of single examples that conflict most."""
        angles, examples = result
        conflicts = [row for tables in examples.values() for row in tables["conflicts"]]
        return {"": [asdict(row) for row in angles.rows()], "conflicts": conflicts}

    def findings(self, result: Measured, options: Asked) -> Sequence[Finding]:
        """Judge whether the gradients of both sets conflict, arm by arm."""
        from geomix.analysis.grad_angle.answer import findings

        return findings(result[0])

    def figures(self, result: Measured, options: Asked) -> Iterable[Drawn]:
        """Draw the angles by depth, in the plane of both gradients, by module, along training."""
        from geomix.analysis.grad_angle.outputs import figures

        return figures(*result)

    def facts(self, result: Measured, options: Asked) -> dict[str, Any]:
        """Return the whole table."""
        from geomix.analysis.grad_angle.examples import without_pairs
        from geomix.analysis.grad_angle.files import to_json
        from geomix.analysis.grad_angle.notes import notes

        angles, examples = result
        return to_json(angles, notes(angles), without_pairs(examples))

    def save(
        self, result: Measured, options: Asked, runs: Sequence[RunDirectory], log: Log
    ) -> list[Path]:
        """Save arrays, tables, report and figures in the first run's folders."""
        from geomix.analysis.grad_angle.outputs import save_all

        return save_all(runs[0], *result, log)

    def answer(
        self,
        result: Measured,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Return the lines that answer: do both sets conflict?"""
        from geomix.analysis.grad_angle.answer import answer

        return answer(result[0], runs[0], files)

    def report(self, result: Measured, options: Asked) -> RenderableType:
        """Return all tables and notes."""
        from geomix.analysis.grad_angle.outputs import report

        return report(*result)


def _measured(asked: Asked) -> dict[str, Any]:
    """Return the options that affect the measurement, and not only its judgement."""
    return {k: v for k, v in asdict(_split(asked)).items() if k not in ("smallest", "planned")}


def _split(asked: Asked) -> Asked:
    """Split lists: `--at A,+4` is `--at A --at +4`, and likewise `--sets`."""
    at = tuple(item for text in asked.at for item in text.split(","))
    sets = tuple(item.strip() for text in asked.sets for item in text.split(","))
    return replace(asked, at=at, sets=sets)
