"""`geomix analyze forgetting`: the change of a loss, and the reach of local models of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option, planned, smallest
from geomix.analysis.parameter_groups import By
from geomix.measures.verdict import Rule

if TYPE_CHECKING:
    from geomix.analysis.forgetting.result import Forgetting
    from geomix.runs.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the measurement.

    Attributes:
        stage: number, from 1, or name; None is the last one.
        name: the set whose loss is measured.
        by: the parameter groups that split the path.
        expansions: local expansions of the finest level; 0 leaves them out.
        segments: most segments of the path.
        draws: of the permuted displacement.
        facts: most examples of each set; None takes all.
        smallest: smallest effect of interest, nats; declared before the runs.
        planned: paired seeds that a verdict needs.
    """

    stage: str | None = option(
        None, "The stage, by number, from 1, or by name [the last one].", metavar="STAGE"
    )
    name: str = option("D_A", "Set to look at.", flag="--set")
    by: By = option("layer", "What the path is split by.")
    expansions: int = option(
        16, "Local expansions of the finest level, a power of two; 0: none.", least=0
    )
    segments: int = option(32, "Segments of the path at most.", least=1)
    draws: int = option(3, "Draws of the permuted displacement, the null.", least=0)
    facts: int | None = option(None, "Facts of each set at most [all].", least=1)
    smallest: float | None = smallest("nats")
    planned: int = planned()


class ForgettingAnalysis(Analysis["Forgetting", Asked]):
    """Measure how a stage changed a set's loss, and test local models of the change.

    RUN is a folder of a run; the default is the newest under runs/. It needs the weights at both
    ends of the stage; the path through the stage needs `record: {weights: true}`. Runs that differ
    only in their seed give means with an interval.
    """

    name = "forgetting"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Forgetting:
        """Measure every arm of every run."""
        from geomix.analysis.forgetting.measure import measure

        return measure(runs, options)

    def tables(self, result: Forgetting, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return orders, reaches, expansions, segments, contrasts and sharpness, one row a seed."""
        from geomix.analysis.forgetting.tables import tables

        return tables(result)

    def findings(self, result: Forgetting, options: Asked) -> Sequence[Finding]:
        """Return the differences between arms, then each arm's change."""
        from geomix.analysis.forgetting.findings import findings

        return list(findings(result, Rule(options.smallest, options.planned)))

    def figures(self, result: Forgetting, options: Asked) -> Iterable[Drawn]:
        """Draw the loss along the displacement, and norm, cosine and length along the path."""
        from geomix.analysis.forgetting.tables import reach_rows, segment_rows
        from geomix.figures import path_factors, reach

        rows = list(reach_rows(result))
        yield Drawn("reach", reach.draw(rows), rows, reach.caption(rows))
        if segments := list(segment_rows(result)):
            drawn = path_factors.draw(segments)
            yield Drawn("factors", drawn, segments, path_factors.caption(segments))

    def prefix(self, result: Forgetting, options: Asked) -> str:
        """Return the start of the files' names."""
        from geomix.analysis.own_sets import suffix_of_set

        by = "" if options.by == "layer" else f"_by_{options.by}"
        return f"forgetting_stage{result.stage}{suffix_of_set(options.name)}{by}"

    def answer(
        self,
        result: Forgetting,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Return the lines that answer: how much was forgotten, by which order, how far?"""
        from geomix.analysis.forgetting.answer import answer

        stem = self.stem(result, options, runs)
        return answer(result, self.findings(result, options), stem, runs[0], files, full)
