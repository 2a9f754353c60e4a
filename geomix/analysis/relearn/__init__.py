"""`geomix analyze relearn`: whether forgotten facts are hidden or gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option, planned
from geomix.measures.verdict import Rule

if TYPE_CHECKING:
    from geomix.analysis.relearn.result import Relearn
    from geomix.runs.directory import RunDirectory

STEPS = (1, 2, 4, 8, 16)
"""Steps on the cues after which everything is scored."""

RATES = (1.0, 0.3)
"""Rates, in units of the last stage's peak rate."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the measurement.

    Attributes:
        name: the set; a stage's own, not the last one's.
        draws: of the cues.
        step: the step, one of `STEPS`, after which a fact must be right to be called hidden.
        rate: the rate, one of `RATES`, likewise.
        budget: most steps of relearning the whole set.
        criterion: exact match that ends it, percent.
        facts: most facts of each set; None takes all.
        smallest: smallest effect of interest, points of recall; declared before the runs.
        planned: seeds that a verdict needs.
    """

    name: str = option("D_A", "Set to look at, an earlier stage's own.", flag="--set")
    draws: int = option(3, "Draws of the cues.", least=1)
    step: int = option(1, "Step after which a hidden fact is right: 1, 2, 4, 8 or 16.", least=1)
    rate: float = option(1.0, "Rate at which it is, of the last stage's: 1 or 0.3.", above=0)
    budget: int | None = option(
        None,
        "Most steps of relearning the whole set; 0 leaves it out [twice its stage's].",
        metavar="STEPS",
        least=0,
    )
    criterion: float = option(99.0, "Exact match that is relearnt, in percent.", above=0)
    facts: int | None = option(None, "Facts of each set at most [all].", least=2)
    smallest: float | None = option(
        None,
        "Smallest effect of interest (points of recall), declared before the runs; a verdict needs "
        "it.",
        metavar="EFFECT",
        above=0,
    )
    planned: int = planned()


class RelearnAnalysis(Analysis["Relearn", Asked]):
    """Retrain a few forgotten facts, and see whether the others come back: hidden or gone.

    RUN is a folder of a run; the default is the newest under runs/. It trains from the checkpoints
    at the ends of the stages, in memory: the run stays as it is. Several runs of other seeds give
    each other the null of another D_A.
    """

    name = "relearn"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Relearn:
        """Retrain every arm of every run."""
        from geomix.analysis.relearn.measure import measure

        return measure(runs, options, log)

    def tables(self, result: Relearn, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the courses of the cues, the facts, and the courses and steps of relearning."""
        from geomix.analysis.relearn.tables import tables

        return tables(result)

    def findings(self, result: Relearn, options: Asked) -> Sequence[Finding]:
        """Return what the cues brought back of each arm's lost facts, and the savings."""
        from geomix.analysis.relearn.findings import findings

        return list(findings(result, Rule(options.smallest, options.planned)))

    def figures(self, result: Relearn, options: Asked) -> Iterable[Drawn]:
        """Draw recall and bits of the facts that were not retrained, over the steps."""
        from geomix.analysis.relearn.tables import drawn_rows
        from geomix.figures import relearn

        rows = drawn_rows(result)
        if rows:
            yield Drawn("", relearn.draw(rows), rows, relearn.caption(rows))

    def prefix(self, result: Relearn, options: Asked) -> str:
        """Return the start of the files' names."""
        from geomix.analysis.own_sets import suffix_of_set

        return self.name + suffix_of_set(options.name)

    def answer(
        self,
        result: Relearn,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer how many forgotten facts are hidden, how many gone, and what relearning saves."""
        from geomix.analysis.relearn.answer import answer

        stem = self.stem(result, options, runs)
        return answer(result, self.findings(result, options), stem, runs[0], files)
