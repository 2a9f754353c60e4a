"""When a run's sets are scored while it trains, and where the scores go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geomix.config import RunConfig
from geomix.data.example import TokenisedExample
from geomix.model.load import LoadedModel
from geomix.run import Run
from geomix.train.evaluate import SetResult, evaluate
from geomix.train.finite import check_finite
from geomix.train.parallel import ALONE, Workers
from geomix.train.stage import Stage, mixed_sets
from geomix.train.step import row_width


@dataclass(frozen=True, slots=True)
class Retention:
    """How well every set of a run is known, at the boundaries of its stages and in between.

    Attributes:
        config: the run.
        loaded: the model being trained; left as it was found.
        run: where the verdicts go.
        stages: of the run.
        extra: sets that are evaluated besides the stages' own, by name.
        workers: the processes that share the scoring.
    """

    config: RunConfig
    loaded: LoadedModel
    run: Run
    stages: Sequence[Stage]
    extra: Mapping[str, Sequence[TokenisedExample]]
    workers: Workers = ALONE

    def due(self, epoch: int) -> bool:
        """Whether retention is measured after so many epochs of a stage, within it."""
        every = self.config.evaluate.epochs
        return bool(every) and epoch % every == 0

    def measure(self, moment: str, stage: Stage, epoch: int, step: int) -> dict[str, SetResult]:
        """Score every set at a boundary, in between those that were trained so far.

        Args:
            moment: `start`, `epoch` or `end`.
            stage: the one that trains.
            epoch: epochs done of it.
            step: optimiser steps done of it.

        Raises:
            UserError: the model has diverged.
        """
        name = "start" if moment == "start" else f"epoch-{epoch:03d}"
        results = evaluate(
            self.loaded,
            self._sets(stage, boundary=moment != "epoch"),
            stage.config.train.loss,
            self.config.evaluate.batch_size,
            self.run.stage_folder(stage.index, stage.name) / "eval" / f"{name}.jsonl",
            row_width(stage.config.train, self.loaded),
            empty_right="empty-answers" in self.config.paper_literal,
            workers=self.workers,
        )
        for result in results.values():
            check_finite(stage.name, step, loss=result.loss)
        return results

    def _sets(self, stage: Stage, *, boundary: bool) -> dict[str, Sequence[TokenisedExample]]:
        sets: dict[str, Sequence[TokenisedExample]] = {
            s.plan.name: s.own for s in self.stages if boundary or s.index <= stage.index
        }
        if boundary:
            sets |= mixed_sets(self.stages)
        return sets | dict(self.extra)


def lines_of(
    results: Mapping[str, SetResult], moment: str, stage: Stage, epoch: int, step: int
) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that tell of a measurement."""
    at = {"event": "evaluation", "stage": stage.index, "step": step, "epoch": epoch}
    return [{**at, "moment": moment, "set": name, **asdict(r)} for name, r in results.items()]
