"""`geomix analyze kl-law`: whether KL on the new task predicts forgetting better than ‖Δθ‖."""

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
    from geomix.analysis.kl_law.result import KLLaw
    from geomix.runs.directory import RunDirectory

LEAVE = ("both", "arms", "seeds")
"""Labels that a point shares with none of those that predict it; nor does it share their run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the measurement.

    Attributes:
        name: the set that is forgotten; a stage's own, not the last one's.
        form: of the fits that are compared (`geomix.measures.cross_validation.FORMS`).
        leave: one of `LEAVE`.
        facts: most examples of each set; None takes all.
        smallest: smallest effect of interest, in R²; declared before the runs.
        planned: seeds that a verdict needs.
    """

    name: str = option("D_A", "Set that is forgotten, an earlier stage's own.", flag="--set")
    form: str = option("quadratic", "Fit that is compared: linear, quadratic, or root.")
    leave: str = option(
        "both", "A point is predicted from other arms, other seeds, or both of them."
    )
    facts: int | None = option(None, "Examples of each set at most [all].", least=1)
    smallest: float | None = option(
        None,
        "Smallest effect of interest (R²), declared before the runs; a verdict needs it.",
        metavar="EFFECT",
        above=0,
    )
    planned: int = planned()


class KLLawAnalysis(Analysis["KLLaw", Asked]):
    """Predict forgetting from the KL divergence on the new task, and from ‖Δθ‖, out of sample.

    RUN is a folder of a run; give several, of other seeds and methods. Models at the ends of the
    stages are loaded, and compared with each stage's start and with θ_0 on every evaluated set, in
    both directions. An arm, a seed and a stage give one point; fits need 30 points of 4 arms.
    """

    name = "kl_law"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> KLLaw:
        """Compare every arm's models, and fit forgetting."""
        from geomix.analysis.kl_law.measure import measure

        return measure(runs, options, log)

    def tables(self, result: KLLaw, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the points, the divergences, the fits and their comparisons."""
        from geomix.analysis.kl_law.tables import tables

        return tables(result)

    def findings(self, result: KLLaw, options: Asked) -> Sequence[Finding]:
        """Return how much better KL predicts than its rivals."""
        from geomix.analysis.kl_law.findings import findings

        return list(findings(result, Rule(options.smallest, options.planned)))

    def figures(self, result: KLLaw, options: Asked) -> Iterable[Drawn]:
        """Draw forgetting against each predictor, with the fits."""
        from geomix.analysis.kl_law.tables import drawn_rows
        from geomix.figures import kl_law

        rows = drawn_rows(result)
        yield Drawn("", kl_law.draw(rows), rows, kl_law.caption(rows))

    def prefix(self, result: KLLaw, options: Asked) -> str:
        """Return the start of the files' names."""
        from geomix.analysis.own_sets import suffix_of_set

        return self.name + suffix_of_set(options.name)

    def answer(
        self,
        result: KLLaw,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer which number predicts forgetting best on runs that the fit has not seen."""
        from geomix.analysis.kl_law.answer import answer

        stem = self.stem(result, options, runs)
        return answer(result, self.findings(result, options), stem, runs[0], files)
