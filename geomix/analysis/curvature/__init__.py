"""`geomix analyze curvature`: both ends of the Hessians' spectra, and their definiteness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geomix.analysis.base import Analysis, Log, Row
from geomix.analysis.findings import Drawn, Finding
from geomix.analysis.options import option

if TYPE_CHECKING:
    from geomix.analysis.curvature.result import Curvature
    from geomix.analysis.partial_results import Unfinished
    from geomix.runs.directory import RunDirectory

Blocks = Literal["whole", "layer"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The analysis's options.

    Attributes:
        at: checkpoints, `0`, `A`, `A+4`, `B`.
        sets: the sets whose Hessians are measured; empty takes the first two that stages train on.
        symmetrised: whether ½(H_A H_B + H_B H_A) of the first two sets is measured, too.
        by: the whole matrix, or its diagonal block of each layer.
        trace: whether traces are estimated.
        density: whether spectral densities are estimated.
        products: most products for the ends of each spectrum.
        facts: most examples of a set.
        differences: whether products are differences of gradients.
    """

    at: tuple[str, ...] = option(
        ("A",),
        "Checkpoints: 0, A, B, or A+4 where weights are kept; with commas, or again.",
        metavar="CHECKPOINT",
    )
    sets: tuple[str, ...] = option(
        (),
        "Whose losses: D_A, D_B, D_M, replay, held-out; with commas, or again [D_A and D_B].",
        metavar="SET",
    )
    symmetrised: bool = option(
        False, "Also ½(H_A H_B + H_B H_A) of the first two sets; it takes four products for one."
    )
    by: Blocks = option("whole", "The whole matrix, or its diagonal block of each layer.")
    trace: bool = option(False, "Also each matrix's trace: 30 products.")
    density: bool = option(False, "Also each spectrum's density: 10 starts of 30 products.")
    products: int | None = option(
        None, "Most products for the ends of each spectrum [40].", metavar="N", least=3
    )
    facts: int | None = option(
        None, "Take the first N facts of each set [all].", metavar="N", least=1
    )
    differences: bool = option(
        False, "Products by differences of gradients, with the model's own attention."
    )

    def listed(self) -> Asked:
        """Split lists: return `--at A --at B` for `--at A,B`."""
        at = [item.strip() for text in self.at for item in text.split(",")]
        sets = [item.strip() for text in self.sets for item in text.split(",")]
        named = [item.removeprefix("theta_").removeprefix("θ_") for item in at]
        once = tuple(dict.fromkeys(named)), tuple(dict.fromkeys(sets))
        return replace(self, at=once[0], sets=once[1])


class CurvatureAnalysis(Analysis["Curvature", Asked]):
    """Measure how curved the losses are at a checkpoint: both ends of their Hessians' spectra.

    RUN is a folder of a run; the default is the newest under runs/. It needs no record, only
    checkpoints; each set is taken whole. Runs that differ only in their seed are put together.
    """

    name = "curvature"
    Options = Asked

    def __init__(self) -> None:
        self._kept: Unfinished | None = None

    @contextmanager
    def session(self, runs: Sequence[RunDirectory], options: Asked) -> Iterator[None]:
        """Keep partial results until everything is saved."""
        from geomix.analysis.partial_results import unfinished

        paths = [str(run.path.absolute()) for run in runs]
        command = {"analysis": self.name, "asked": asdict(options.listed()), "runs": paths}
        with unfinished(runs[0], command) as self._kept:
            yield

    def measure(self, runs: Sequence[RunDirectory], options: Asked, log: Log) -> Curvature:
        """Measure the spectra, and the curvature along displacements, of every arm and seed."""
        from geomix.analysis.curvature.measure import measure

        return measure(runs, options.listed(), log, self._kept)

    def tables(self, result: Curvature, options: Asked) -> Mapping[str, Sequence[Row]]:
        """Return the spectra, the curvature along displacements, and densities if requested."""
        return result.tables()

    def findings(self, result: Curvature, options: Asked) -> Sequence[Finding]:
        """Judge arm by arm and matrix by matrix: positive semidefinite or not."""
        from geomix.analysis.curvature.answer import findings

        return findings(result)

    def figures(self, result: Curvature, options: Asked) -> Iterable[Drawn]:
        """Draw the ends of the spectra, and the densities."""
        from geomix.figures import curvature

        rows = result.tables()[""]
        yield Drawn("", curvature.draw(rows), rows, curvature.caption(rows))
        if densities := result.tables().get("density"):
            drawn = curvature.draw_density(densities)
            yield Drawn("density", drawn, densities, curvature.density_caption(densities))

    def answer(
        self,
        result: Curvature,
        options: Asked,
        runs: Sequence[RunDirectory],
        files: Sequence[Path],
        full: bool,
    ) -> list[str]:
        """Answer how curved the losses are, and whether their Hessians are definite."""
        from geomix.analysis.curvature.answer import answer

        return answer(result, self.stem(result, options, runs), runs[0], files)
