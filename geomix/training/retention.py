"""Retention measurements of a run's sets during training: their schedule and storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geomix.config.run import RunConfig
from geomix.data.example import TokenisedExample
from geomix.measures.scores import chosen
from geomix.models.distributed import ALONE, Workers
from geomix.models.load import LoadedModel
from geomix.runs.directory import RunDirectory, scores_file
from geomix.training.evaluate import SetResult, evaluate
from geomix.training.finite import check_finite
from geomix.training.kl_reference import Reference
from geomix.training.stage import Stage, mixed_sets
from geomix.training.step import row_width


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention of every set of a run, at the boundaries of its stages and in between.

    Attributes:
        config: the run.
        loaded: the model being trained; left unchanged.
        run: the directory of the examples' scores.
        stages: of the run.
        extra: sets that are evaluated besides the stages' own, by name.
        workers: the processes that share the scoring.
    """

    config: RunConfig
    loaded: LoadedModel
    run: RunDirectory
    stages: Sequence[Stage]
    extra: Mapping[str, Sequence[TokenisedExample]]
    workers: Workers = ALONE

    def begin(self, stage: Stage, *, again: bool = False) -> None:
        """Store the model's output distributions before the first step of a stage, if configured.

        Args:
            stage: the stage that starts or resumes.
            again: whether it resumes, so that the stored file must still exist.
        """
        reference = self._reference(stage)
        if reference is not None and again:
            if self.workers.main:
                reference.check()
        elif reference is not None:
            with self.workers.unsharded(self.loaded.model):
                if self.workers.main:
                    reference.write(self.loaded, self._sets(stage, boundary=True))

    def due(self, epoch: int, step: int, *, finished: bool) -> str | None:
        """Return `epoch` or `step` if retention is measured here within a stage; else None.

        Args:
            epoch: epochs done, once the present one is.
            step: steps done.
            finished: whether the step was the epoch's last.
        """
        evaluate = self.config.evaluate
        if finished and evaluate.epochs and epoch % evaluate.epochs == 0:
            return "epoch"
        return "step" if evaluate.steps and step % evaluate.steps == 0 else None

    def measure(self, moment: str, stage: Stage, epoch: int, step: int) -> dict[str, SetResult]:
        """Score every set at a boundary; in between, a part of the sets trained so far.

        Args:
            moment: `start`, `end`, or in between `epoch` or `step`.
            stage: the one that trains.
            epoch: epochs done of it.
            step: optimiser steps done of it.

        Raises:
            UserError: the model has diverged, or its reference for the KL divergence is missing.
        """
        boundary = moment in ("start", "end")
        sets = self._sets(stage, boundary=boundary)
        results = evaluate(
            self.loaded,
            sets if boundary else self._sampled(stage, sets),
            stage.config.train.loss,
            self.config.evaluate.batch_size,
            scores_file(self.run.stage_folder(stage.index, stage.name), moment, epoch, step),
            row_width(stage.config.train, self.loaded),
            scores=chosen(self.config.evaluate.scores),
            empty_right="empty-answers" in self.config.paper_literal,
            exact_only=not boundary,
            workers=self.workers,
        )
        reference = self._reference(stage)
        if reference is not None:
            results = {
                name: SetResult(result.n, {**result.scores, "kl": kl})
                for name, result in results.items()
                for kl in [self._divergence(reference, name, sets[name])]
            }
        for result in results.values():
            check_finite(stage.name, step, loss=result["loss"], kl=result.scores["kl"] or 0.0)
        return results

    def _divergence(
        self, reference: Reference, name: str, examples: Sequence[TokenisedExample]
    ) -> float:
        """Compute the divergence in the first process and share it: others may not see the file."""
        with self.workers.unsharded(self.loaded.model):
            main = self.workers.main
            found = reference.divergence(self.loaded, name, examples) if main else 0.0
        return self.workers.total(found)

    def _reference(self, stage: Stage) -> Reference | None:
        """Return the reference of the stage's initial model, if the KL divergence is measured."""
        evaluate = self.config.evaluate
        if evaluate.kl is None:
            return None
        file = self.run.stage_folder(stage.index, stage.name) / "start.safetensors"
        width = row_width(stage.config.train, self.loaded)
        return Reference(file, evaluate.kl, evaluate.batch_size, width)

    def _sampled(
        self, stage: Stage, sets: Mapping[str, Sequence[TokenisedExample]]
    ) -> dict[str, Sequence[TokenisedExample]]:
        """Return the first examples of each set; all of one whose exact match may end the stage."""
        whole = {stage.plan.name} if stage.config.stop.exact_match is not None else set()
        return {
            name: examples if name in whole else examples[: self.config.evaluate.sample]
            for name, examples in sets.items()
        }

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
    """Return the lines of `metrics.jsonl` for a measurement."""
    at = {"event": "evaluation", "stage": stage.index, "step": step, "epoch": epoch}
    return [{**at, "moment": moment, "set": name, **r.facts()} for name, r in results.items()]
