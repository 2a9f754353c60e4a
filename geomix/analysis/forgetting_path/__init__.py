"""`geomix analyze forgetting-path`: attribution of a loss change to layers and sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn
from geomix.analysis.options import option
from geomix.analysis.parameter_groups import By
from geomix.util.errors import UserError
from geomix.util.progress import phase

if TYPE_CHECKING:
    from rich.console import RenderableType

    from geomix.analysis.forgetting_path.split import ForgettingPath
    from geomix.runs.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the split.

    Attributes:
        stage: number, from 1, or name; None is the last recorded one.
        name: the probe set of figure and notes.
        by: the parameter groups, one for each row of the table.
    """

    stage: str | None = option(
        None,
        "The stage, by number, from 1, or by name [the last one that is recorded].",
        metavar="STAGE",
    )
    name: str = option("D_A", "Probe set to look at.", flag="--set")
    by: By = option("layer", "What a row of the table stands for.")


class ForgettingPathAnalysis(Analysis["ForgettingPath", Asked]):
    """Split the change of a set's loss over a stage by layer and by the source of the updates.

    RUN is a folder of a run with `record: {preset: path}`; the default is the newest under runs/.
    Runs that differ only in their seed give means with an interval.
    """

    name = "forgetting_path"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> ForgettingPath:
        """Sum the path of each run, by group and by part of the update."""
        from geomix.analysis.forgetting_path.record import asked_stage
        from geomix.analysis.forgetting_path.split import measure

        index = None if options.stage is None else asked_stage(runs, options.stage)
        with phase("splitting the path"):
            result = measure(runs, index, options.by)
        for arm in result.arms:
            if options.name not in arm.sets:
                raise UserError(
                    f"--set {options.name}: {arm.runs[0]} recorded {', '.join(arm.sets)}"
                )
        return result

    def tables(self, result: ForgettingPath, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the change of the set's loss by group and part of the update, in nats."""
        return {"": list(result.cell_rows(options.name))}

    def figures(self, result: ForgettingPath, options: Asked) -> Iterable[Drawn]:
        """Draw the change by layer and block."""
        from geomix.figures.forgetting_path import caption, draw

        rows = list(result.cell_rows(options.name))
        return [Drawn("", draw(rows), rows, caption(rows))]

    def facts(self, result: ForgettingPath, options: Asked) -> dict[str, Any]:
        """Return the whole table."""
        from geomix.analysis.forgetting_path.notes import notes
        from geomix.analysis.forgetting_path.split import to_json

        return to_json(result, notes(result, options.name))

    def stem(self, result: ForgettingPath, options: Asked, runs: Sequence[RunDirectory]) -> str:
        """Return the common start of the files' names."""
        from geomix.analysis.forgetting_path.outputs import stem_of

        return stem_of(result, runs)

    def save(
        self, result: ForgettingPath, options: Asked, runs: Sequence[RunDirectory], log: Log
    ) -> list[Path]:
        """Save arrays, table and figure in the first run's folders."""
        from geomix.analysis.forgetting_path.outputs import save_all

        return save_all(result, runs, options.name, options.by)

    def answer(
        self,
        result: ForgettingPath,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Return the lines that answer: where did the set's loss change?"""
        from geomix.analysis.forgetting_path.answer import answer

        return answer(result, options.name, self.stem(result, options, runs), runs[0], files, full)

    def report(self, result: ForgettingPath, options: Asked) -> RenderableType:
        """Return all tables and notes."""
        from geomix.analysis.forgetting_path.tables import render

        return render(result, options.name)
