"""`geomix analyze theory`: the scorecard of the paper's theory, one row per claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option, planned, smallest
from geomix.measures.verdict import Rule

if TYPE_CHECKING:
    from geomix.analysis.theory.scores import Score
    from geomix.runs.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Asked:
    """Effects declared before the runs.

    Attributes:
        smallest: smallest effect of interest, nats.
        smallest_share: the same for shares, cosines and rank correlations.
        planned: paired seeds that a verdict needs.
    """

    smallest: float | None = smallest("nats")
    smallest_share: float | None = option(
        None,
        "Smallest share, cosine or rank correlation of interest, declared before the runs.",
        metavar="EFFECT",
        above=0,
    )
    planned: int = planned()


class TheoryAnalysis(Analysis["list[Score]", Asked]):
    """Score the claims of the paper's theory: prediction, measurement, interval, verdict.

    RUN is a folder of a run with an analysis `forgetting`, `delta2` or `curvature`; give the same
    runs here, or runs that were analysed one by one. Nothing is measured again.
    """

    name = "theory"
    Options = Asked

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> list[Score]:
        """Compute every claim from the files of the other analyses."""
        from geomix.analysis.theory.claims import scorecard
        from geomix.analysis.theory.scores import Rules
        from geomix.analysis.theory.sources import read

        nats = Rule(options.smallest, options.planned)
        share = Rule(options.smallest_share, options.planned)
        return scorecard(read(runs), Rules(nats, share))

    def tables(self, result: list[Score], options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return one row per claim."""
        return {"": [asdict(score) for score in result]}

    def findings(self, result: list[Score], options: Asked) -> Sequence[Finding]:
        """Return the claims that were measured."""
        return [
            Finding(
                claim=score.claim,
                estimate=score.measured,
                low=score.low,
                high=score.high,
                unit=score.unit,
                n=score.n,
                verdict=score.verdict,
                sentence=f"Predicted {score.prediction}. {score.null}. {score.why}".strip(". "),
            )
            for score in result
            if score.n
        ]

    def figures(self, result: list[Score], options: Asked) -> Iterable[Drawn]:
        """Draw every claim's effect with its interval."""
        from geomix.figures import scorecard

        rows = [asdict(score) for score in result]
        return [Drawn("", scorecard.draw(rows), rows, scorecard.caption(rows))]

    def answer(
        self,
        result: list[Score],
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer which claims hold."""
        from geomix.analysis.theory.answer import answer

        return answer(result, self.stem(result, options, runs), runs[0], files, full)
