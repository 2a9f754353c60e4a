"""The stages of a run, one after the other: θ_0 → θ_A → θ_B and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from geomix.atomic import append_json_line, write_json, write_text
from geomix.config import RunConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import chat_format
from geomix.data.describe import listed
from geomix.data.example import TokenisedExample
from geomix.data.stage import StagePlan
from geomix.errors import Interrupted
from geomix.model.gradient import Forward
from geomix.model.load import LoadedModel
from geomix.run import Run
from geomix.train.checkpoint import Checkpoint, Position, restore, save
from geomix.train.evaluate import SetResult
from geomix.train.events import Moment, Observer
from geomix.train.finite import check_finite
from geomix.train.optimiser import learning_rate, make_optimiser
from geomix.train.retention import Retention, lines_of
from geomix.train.saving import Saving
from geomix.train.stage import Stage, check_unchanged, stages_of
from geomix.train.step import (
    StepResult,
    row_width,
    seed_dropout,
    training_forward,
    training_step,
)
from geomix.train.stopping import Stopping


class Progress(Protocol):
    """What the user sees while a run trains."""

    def stage(self, name: str, steps: int) -> None:
        """A stage begins."""

    def step(self, result: StepResult) -> None:
        """A step is done."""

    def evaluation(self, results: dict[str, SetResult]) -> None:
        """Retention was measured."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Trains the stages of one run and writes data, metrics, verdicts and checkpoints.

    The trajectory is a function of the configuration alone: no observer, evaluation, checkpoint or
    interruption changes it, and on one machine with one thread count it is the same bit for bit.

    Attributes:
        config: the run.
        loaded: θ_0, or the weights of the checkpoint to go on from; training changes them in place.
        run: where everything is written; the caller holds its lock.
        observers: are shown every moment of the training.
        progress: is told what to show.
        evaluated: sets that are evaluated besides the stages' own, by name.
        stop: whether the process was asked to end: then a checkpoint is saved after the step.
    """

    config: RunConfig
    loaded: LoadedModel
    run: Run
    observers: Sequence[Observer]
    progress: Progress
    evaluated: Mapping[str, Sequence[TokenisedExample]] = field(default_factory=dict)
    stop: Callable[[], bool] = bool

    def train(self, plans: Sequence[StagePlan], start: Checkpoint | None = None) -> None:
        """Train every stage, or those that a checkpoint leaves.

        Args:
            plans: the examples of the stages (`geomix.data.stage.plan_stages`).
            start: where to go on; None begins at θ_0.

        Raises:
            Interrupted: the process was asked to end; a checkpoint is saved.
            UserError: the loss is not finite, or the data is not what it was.
        """
        chat = chat_format(self.config.chat_template, self.loaded.tokenizer)
        stages = stages_of(self.config, plans, self.loaded.tokenizer, chat)
        for stage in stages:
            described = stage.described(dict(self.evaluated), chat)
            check_unchanged(self._folder(stage) / "data.json", described)
            write_json(self._folder(stage) / "data.json", described)
            write_text(self._folder(stage) / "examples.jsonl", listed(stage.plan))
        self.run.truncate_metrics(start.position.metrics if start else 0)
        retention = Retention(self.config, self.loaded, self.run, stages, self.evaluated)
        first = start.position.stage if start else 0
        for stage in stages[first:]:
            self._stage(stage, retention, start if stage.index == first else None)

    def _stage(self, stage: Stage, retention: Retention, start: Checkpoint | None) -> None:
        """θ before the stage → θ after it."""
        train, device = stage.config.train, self.loaded.device
        model = self.loaded.model
        self.progress.stage(stage.name, stage.steps)
        optimiser = make_optimiser(model, train)
        position = start.position if start else Position(stage.index)
        if start:
            restore(start, model, optimiser)
        stopping = Stopping(stage.config.stop, **position.stopping)
        saving = Saving(self.config.checkpoint, self._folder(stage) / "checkpoints")
        if position.step == 0:
            if stage.index == 0:  # later stages begin where the one before was evaluated
                self._measure(retention, "start", stage, 0, 0)
            self._announce(stage, 0, 0, None)
        step = position.step
        forward = training_forward(model, train.precision, device)
        model.train()
        for epoch in range(position.epoch, stage.config.stop.epochs):
            batches = stage.plan.batches(self.config.seed, stage.index, epoch, train.batch_size)
            done = position.batch if epoch == position.epoch else 0
            for number, indices in enumerate(batches[done:], start=done + 1):
                result = self._step(stage, step, indices, forward, optimiser)
                step += 1
                ended, finished = stopping.step(result.loss), number == len(batches)
                if finished:
                    ended = stopping.epoch() or ended or epoch + 1 == stage.config.stop.epochs
                if finished and not ended and retention.due(epoch + 1):
                    ended = stopping.evaluation(
                        self._measure(retention, "epoch", stage, epoch + 1, step)
                    )
                if ended:
                    self._measure(retention, "end", stage, epoch + 1, step)
                self._announce(stage, step, epoch + finished, result.loss, last=ended)
                if ended:
                    model.eval()
                    self._save(saving.final, optimiser, Position(stage.index + 1))
                    saving.clear()
                    return
                asked = self.stop()
                if asked or saving.due(step):
                    place = (epoch + 1, 0) if finished else (epoch, number)
                    at = Position(stage.index, *place, step, stopping=stopping.state())
                    self._save(saving.within(step), optimiser, at)
                    saving.saved()
                if asked:
                    raise Interrupted(self.run.path)

    def _step(
        self,
        stage: Stage,
        step: int,
        indices: Sequence[int],
        forward: Forward,
        optimiser: torch.optim.Optimizer,
    ) -> StepResult:
        """One step of the optimiser, logged and shown."""
        train = stage.config.train
        seed_dropout(self.config.seed, stage.index, step)
        rate = learning_rate(step, stage.steps, train)
        for group in optimiser.param_groups:
            group["lr"] = rate
        sources = stage.batch(indices)
        if "padding-loss" in self.config.paper_literal:
            sources = with_padding_loss(sources)
        width = row_width(train, self.loaded)
        pad, device = self.loaded.pad_id, self.loaded.device
        result = training_step(forward, optimiser, sources, train, pad, device, width)
        check_finite(stage.name, step + 1, loss=result.loss, gradient_norm=result.gradient_norm)
        at = {"event": "step", "stage": stage.index, "step": step + 1, "lr": rate}
        self._log({**at, **asdict(result)})
        self.progress.step(result)
        return result

    def _save(self, path: Path, optimiser: torch.optim.Optimizer, position: Position) -> None:
        place = replace(position, metrics=self.run.metrics_saved())
        save(path, self.loaded, optimiser, place)

    def _measure(
        self, retention: Retention, moment: str, stage: Stage, epoch: int, step: int
    ) -> float:
        """Measure retention, log and show it; exact match on the stage's own set, 0 to 100."""
        results = retention.measure(moment, stage, epoch, step)
        for line in lines_of(results, moment, stage, epoch, step):
            self._log(line)
        self.run.set_status(
            "running", stage=stage.index, stage_name=stage.name, step=step, epoch=epoch
        )
        self.progress.evaluation(results)
        return results[stage.plan.name].exact_match

    def _announce(
        self, stage: Stage, step: int, epoch: int, loss: float | None, *, last: bool = False
    ) -> None:
        model, steps = self.loaded.model, stage.steps
        moment = Moment(model, stage.index, stage.name, step, steps, epoch, loss, last)
        for observer in self.observers:
            observer.observe(moment)

    def _log(self, line: Mapping[str, Any]) -> None:
        append_json_line(self.run.metrics_file, line)

    def _folder(self, stage: Stage) -> Path:
        return self.run.stage_folder(stage.index, stage.name)
