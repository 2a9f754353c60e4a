"""`geomix analyze delta2`: by which part another arm forgets less, and what of it theory explains.

Theory and its slips: `docs/explanation/delta.md`. Three levels stay apart: measurements of real
displacements, a local theory within its reach, and rows about the paper's assumptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option, planned, smallest
from geomix.analysis.parameter_groups import By
from geomix.measures.verdict import Rule
from geomix.util.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from geomix.analysis.delta2.result import Delta2
    from geomix.runs.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the comparison.

    Attributes:
        reference: the arm that all others are compared with; None takes `plain`.
        by: grouping of the parameters: one row of the table by group each.
        facts: most examples of each set; None takes all.
        parts: leave out all that takes a Hessian, D_M or the checkpoints of stage 2.
        draws: draws of D_M for the mean of the cross terms; 0 leaves them out.
        smallest: smallest effect of interest, nats, declared before the runs.
        planned: paired seeds that a verdict needs.
    """

    reference: str | None = option(
        None,
        "The arm that the others are compared with [plain, else the first that mixes nothing in].",
        metavar="ARM",
    )
    by: By = option("layer", "Grouping of the parameters in the table by group.")
    facts: int | None = option(
        None,
        "Take at most so many examples of each set; nothing is exact then [the whole sets].",
        metavar="N",
        least=1,
    )
    parts: bool = option(
        False, "Only Δ, its parts and the exact terms: no Hessian, nothing along the steps."
    )
    draws: int = option(
        0, "Also test the cross terms over so many draws of D_M; 20 or more.", least=0
    )
    smallest: float | None = smallest("nats")
    planned: int = planned()

    def __post_init__(self) -> None:
        """Reject draws that give no mean.

        Raises:
            UserError: they are requested.
        """
        if self.draws and self.parts:
            raise UserError("--parts leaves the draws of D_M out; give --draws without it")
        if self.draws == 1:
            raise UserError("--draws 1: a mean over draws needs at least 2; 20 are wanted")

    @property
    def rule(self) -> Rule:
        """Rule by which verdicts are given."""
        return Rule(self.smallest, self.planned)


class Delta2Analysis(Analysis["Delta2", Asked]):
    """Split the difference in forgetting between arms into the parts of the paper's appendix A.

    RUN is a folder of a run with arms and their weights at the end of both stages; the default is
    the newest under runs/. Runs that differ only in their seed give means with an interval; those
    that also share all examples give the floor.
    """

    name = "delta2"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Delta2:
        """Compare the arms, on the whole training sets."""
        from geomix.analysis.delta2.arms import arms_of
        from geomix.analysis.delta2.measure import measure

        arms = arms_of(runs, options.reference)
        return measure(arms, options.facts, options.draws, options.parts, log)

    def tables(self, result: Delta2, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return one table per level, and tables by seed, parameter group, checkpoint and draw."""
        from geomix.analysis.delta2.tables import tables

        return tables(result, options.by)

    def findings(self, result: Delta2, options: Asked) -> Sequence[Finding]:
        """Judge Δ and its parts in each comparison."""
        from geomix.analysis.delta2.verdicts import findings

        return list(findings(result, options.rule))

    def figures(self, result: Delta2, options: Asked) -> Iterable[Drawn]:
        """Draw Δ's parts from arm to arm, and the stage-2 condition along the steps."""
        from geomix.analysis.delta2.drawn import drawn

        return drawn(result, options.parts)

    def prefix(self, result: Delta2, options: Asked) -> str:
        """Return the start of the files' names."""
        return "delta_parts" if options.parts else self.name

    def facts(self, result: Delta2, options: Asked) -> dict[str, Any]:
        """Return all tables, with D_A's facts, the reduction and the reference."""
        found = super().facts(result, options)
        of = {"D_A": result.counted, "reduction": result.reduction, "schema_version": 1}
        return found | of | {"reference": result.arms.reference}

    def answer(
        self,
        result: Delta2,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer which arm forgot less, and by which part."""
        from geomix.analysis.delta2.answer import answer, short_answer

        stem = self.stem(result, options, runs)
        if options.parts:
            return short_answer(result, options.rule, stem, runs[0], files, full)
        return answer(result, options.rule, stem, runs[0], files, full)

    def report(self, result: Delta2, options: Asked) -> RenderableType:
        """Return all numbers, level by level."""
        from geomix.analysis.delta2.answer import report

        return report(result, options.rule, options.by)
