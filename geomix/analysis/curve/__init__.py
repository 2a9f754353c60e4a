"""`geomix analyze curve`: the stability gap of a set, and the law by which it is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option, planned

if TYPE_CHECKING:
    from geomix.analysis.curve.result import Curve
    from geomix.runs.directory import RunDirectory

AXES = ("steps", "tokens", "length")
"""Time axes: optimiser steps, tokens trained on, and length of the path of the weights."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the measurement.

    Attributes:
        name: the set; a stage's own.
        against: time axes.
        planned: seeds that a verdict on a law needs.
    """

    name: str = option("D_A", "Set to look at, a stage's own.", flag="--set")
    against: tuple[str, ...] = option(
        AXES,
        "Time after the set's stage: steps, tokens, length (of the weights' path); with commas, or "
        "again [all].",
        metavar="AXIS",
        shown=False,
    )
    planned: int = planned()


class CurveAnalysis(Analysis["Curve", Asked]):
    """Measure how a set fades after its own stage: stability gap, and law of retention.

    RUN is a folder of a run; the default is the newest under runs/. It needs evaluations within the
    stages after the set's own (`evaluate.steps`); nothing is computed with a model. Laws are fitted
    to 6 evaluations or more. Runs that differ only in their seed give means with an interval.
    """

    name = "curve"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Curve:
        """Read every arm's evaluations, and fit the laws to them."""
        from geomix.analysis.curve.measure import measure

        return measure(runs, options)

    def tables(self, result: Curve, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the laws, the points, the gaps and the worst cases."""
        from geomix.analysis.curve.tables import tables

        return tables(result)

    def findings(self, result: Curve, options: Asked) -> Sequence[Finding]:
        """Return the law of each arm, then its stability gap."""
        from geomix.analysis.curve.findings import findings

        return list(findings(result, options.planned))

    def figures(self, result: Curve, options: Asked) -> Iterable[Drawn]:
        """Draw what is left against each time axis, with the best law of each arm."""
        from geomix.analysis.curve.tables import drawn_rows
        from geomix.figures import retention_law

        rows = list(drawn_rows(result))
        yield Drawn("", retention_law.draw(rows), rows, retention_law.caption(rows))

    def prefix(self, result: Curve, options: Asked) -> str:
        """Return the start of the files' names."""
        from geomix.analysis.own_sets import suffix_of_set

        return self.name + suffix_of_set(options.name)

    def answer(
        self,
        result: Curve,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer what is left, how deep the dip was, and which law holds."""
        from geomix.analysis.curve.answer import answer

        stem = self.stem(result, options, runs)
        return answer(result, self.findings(result, options), stem, runs[0], files)
