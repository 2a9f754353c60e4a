"""The stages of a run, one after the other: θ_0 → θ_A → θ_B and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat, chat_format
from geomix.data.example import TokenisedExample
from geomix.data.plan import StagePlan
from geomix.data.provenance import listed
from geomix.models.distributed import ALONE, Workers
from geomix.models.load import CPU, LoadedModel, load_model
from geomix.runs.directory import RunDirectory
from geomix.training.checkpoint import Checkpoint, Position, adopt, save, saved_second_moments
from geomix.training.checkpoint_rotation import Saving
from geomix.training.finite import check_finite
from geomix.training.methods.applied import applied
from geomix.training.methods.base import StageContext
from geomix.training.observer import Observer, TrainingEvent
from geomix.training.retention import Retention, lines_of
from geomix.training.reuse import ReusedStage
from geomix.training.setup import Setup, check_workers, weights_dtype
from geomix.training.stage import Stage, check_reused_data, check_unchanged, stages_of
from geomix.training.step import StepResult, seed_dropout
from geomix.training.stopping import Stopping
from geomix.util.errors import Interrupted, UserError
from geomix.util.files import append_json_line, write_json, write_text


class Progress(Protocol):
    """Display of a run's training for the user."""

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Display that a stage starts or resumes.

        Args:
            name: of the stage.
            index: its index, from 0.
            stages: number of stages of the run.
            steps: most optimiser steps of the stage.
            batch: examples of a step, on average.
        """

    def logged(self, line: Mapping[str, Any]) -> None:
        """Display a new line of `metrics.jsonl`."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Trainer of a run's stages; writes data, metrics, example scores and checkpoints.

    The trajectory is a function of the configuration alone: no observer, evaluation, checkpoint or
    interruption changes it, and on one machine with one thread count it is the same bit for bit.

    Attributes:
        config: the run.
        loaded: θ_0, or the weights of the checkpoint to resume from; training changes them in
            place.
        run: the directory to write to; the caller holds its lock.
        observers: receive every training event.
        progress: displays the training.
        evaluated: sets that are evaluated besides the stages' own, by name.
        stop: whether the process was asked to end: then a checkpoint is saved after the step.
        reused: stages reused from other runs, by index.
        known_steps: number of steps of the stages that copy another run's, by index.
        workers: the processes that share the training.
        chat: the run's chat format; None reads the configured template in its present form.
    """

    config: RunConfig
    loaded: LoadedModel
    run: RunDirectory
    observers: Sequence[Observer]
    progress: Progress
    evaluated: Mapping[str, Sequence[TokenisedExample]] = field(default_factory=dict)
    stop: Callable[[], bool] = bool
    reused: Mapping[int, ReusedStage] = field(default_factory=dict)
    known_steps: Mapping[int, int] = field(default_factory=dict)
    workers: Workers = ALONE
    chat: ChatFormat | None = None

    def train(self, plans: Sequence[StagePlan], start: Checkpoint | None = None) -> None:
        """Train every stage, or those that remain after a checkpoint.

        Args:
            plans: the examples of the stages (`geomix.data.plan.plan_stages`).
            start: the checkpoint to resume from; None starts at θ_0.

        Raises:
            Interrupted: the process was asked to end; a checkpoint is saved.
            UserError: the loss is not finite, or the data has changed.
        """
        check_workers(self.config, self.workers)
        tokenizer = self.loaded.tokenizer
        again = "newline-loss" in self.config.paper_literal
        chat = self.chat or chat_format(self.config.chat_template, tokenizer, newline_loss=again)
        stages = stages_of(self.config, plans, tokenizer, chat, self.known_steps)
        if self.workers.main:
            self._keep_data(stages, chat)
            self.run.truncate_metrics(start.position.metrics if start else 0)
        retention = Retention(
            self.config, self.loaded, self.run, stages, self.evaluated, self.workers
        )
        first = start.position.stage if start else 0
        for stage in stages[first:]:
            if stage.index in self.reused:
                self._take(stage, retention, self.reused[stage.index])
            else:
                begun = start if stage.index == first else None
                self._stage(stage, retention, begun, stages[: stage.index])

    def _keep_data(self, stages: Sequence[Stage], chat: ChatFormat) -> None:
        """Write the stages' data after checking that none has changed; existing files stay."""
        known = [stage.described(dict(self.evaluated), chat) for stage in stages]
        for stage, described in zip(stages, known, strict=True):
            check_unchanged(self._folder(stage) / "data.json", described)
            if stage.index in self.reused:
                check_reused_data(self.reused[stage.index].folder / "data.json", described, stage)
        for stage, described in zip(stages, known, strict=True):
            file = self._folder(stage) / "data.json"
            if not file.exists():
                write_text(file.with_name("examples.jsonl"), listed(stage.plan))
                write_json(file, described)

    def _take(self, stage: Stage, retention: Retention, reused: ReusedStage) -> None:
        """Apply a stage reused from another run: θ before the stage → θ after it."""
        self._begin(stage, retention)
        model = self.loaded.model.to(weights_dtype(self.config, stage.index))
        theirs = load_model(str(reused.checkpoint.path), CPU).model
        try:
            model.load_state_dict(theirs.state_dict())
        except RuntimeError:
            raise UserError(f"{reused.folder}: a stage of another model than this run's") from None
        self._measure(retention, "end", stage, 0, reused.steps)
        moments = saved_second_moments(reused.checkpoint, stage.index, reused.steps)
        known = replace(stage, steps=reused.steps)
        self._announce(known, reused.steps, 0, None, last=True, second_moments=moments)
        if self.workers.main:
            position = Position(stage.index + 1, metrics=self.run.metrics_saved())
            adopt(reused.checkpoint, self._saving(stage).final, position)

    def _begin(self, stage: Stage, retention: Retention) -> None:
        """Begin a stage: a later stage's start was evaluated at the previous one's end."""
        self._show(stage)
        retention.begin(stage)
        if stage.index == 0:
            self._measure(retention, "start", stage, 0, 0)
        self._announce(stage, 0, 0, None)

    def _stage(
        self,
        stage: Stage,
        retention: Retention,
        start: Checkpoint | None,
        earlier: Sequence[Stage],
    ) -> None:
        """Train a stage: θ before it → θ after it; `earlier` are the stages before."""
        position = start.position if start else Position(stage.index)
        methods = applied(stage.config.method)
        setup = Setup.of(self.config, stage, self.loaded, self.workers, start, methods)
        stopping = Stopping(stage.config.stop, **position.stopping)
        saving = self._saving(stage)
        if position.step == 0:
            self._begin(stage, retention)
            if methods is not None:
                methods.begin_stage(self._context(stage, earlier))
        else:
            self._show(stage)
            retention.begin(stage, again=True)
            moments = setup.second_moments(stage.index, position.step)
            known = {"resumed": True, "second_moments": moments}
            self._announce(stage, position.step, position.epoch, None, **known)
        step, size = position.step, stage.config.train.batch_size
        self.loaded.model.train()
        for epoch in range(position.epoch, stage.epochs):
            batches = stage.plan.batches(self.config.seed, stage.index, epoch, size)
            done = position.batch if epoch == position.epoch else 0
            for number, indices in enumerate(batches[done:], start=done + 1):
                result = self._step(stage, step, indices, setup)
                step += 1
                finished = number == len(batches)
                ended = stopping.step(result.loss) or step == stage.steps
                if finished:
                    ended = stopping.epoch() or ended
                moment = None if ended else retention.due(epoch + 1, step, finished=finished)
                if moment is not None:
                    ended = stopping.evaluation(
                        self._measure(retention, moment, stage, epoch + finished, step)
                    )
                moments = setup.second_moments(stage.index, step)
                optimiser = {"second_moments": moments, "update": setup.update()}
                self._announce(stage, step, epoch + finished, result.loss, last=ended, **optimiser)
                if ended:
                    if methods is not None:
                        methods.end_stage(self._context(stage, earlier))
                    self._end(stage, setup, retention, epoch + 1, step)
                    return
                asked, due = self.workers.any(self.stop(), self.workers.main and saving.due(step))
                if asked or due:
                    batch = (epoch + 1, 0) if finished else (epoch, number)
                    at = Position(stage.index, *batch, step, stopping=stopping.state())
                    self._save(saving.within(step), setup.state(), at, setup.weights())
                    if self.workers.main:
                        saving.saved()
                if asked:
                    raise Interrupted

    def _end(self, stage: Stage, setup: Setup, retention: Retention, epoch: int, step: int) -> None:
        """End the stage: restore an ordinary model, measure and save it."""
        saving = self._saving(stage)
        moments = dict(setup.finish())
        self._measure(retention, "end", stage, epoch, step)
        self._save(saving.final, moments, Position(stage.index + 1), setup.weights())
        if self.workers.main:
            saving.clear()

    def _step(self, stage: Stage, step: int, indices: Sequence[int], setup: Setup) -> StepResult:
        """Take and log one optimiser step."""
        reseed = partial(seed_dropout, self.config.seed, stage.index, step, self.workers.rank)
        reseed()
        rate = stage.rate(step)
        for group in setup.stepper.optimiser.param_groups:
            group["lr"] = rate
        result = setup.stepper.step(stage.batch(indices), (stage.index, step), reseed)
        check_finite(stage.name, step + 1, loss=result.loss, gradient_norm=result.gradient_norm)
        at = {"event": "step", "stage": stage.index, "step": step + 1, "lr": rate}
        asked = {key: value for key, value in asdict(result).items() if value is not None}
        self._log({**at, **asked})
        return result

    def _context(self, stage: Stage, earlier: Sequence[Stage]) -> StageContext:
        """Return the context of a stage for methods."""
        own = {before.plan.name: before.own for before in earlier}
        return StageContext(
            stage.index,
            stage.name,
            self.config.seed,
            self.loaded,
            stage.config.train.loss,
            stage.tokenised,
            own,
            self.workers,
        )

    def _save(
        self,
        path: Path,
        state: Mapping[str, Tensor],
        position: Position,
        weights: Mapping[str, Tensor] | None,
    ) -> None:
        if self.workers.main:
            saved = replace(position, metrics=self.run.metrics_saved())
            save(path, self.loaded, state, saved, weights)

    def _measure(
        self, retention: Retention, moment: str, stage: Stage, epoch: int, step: int
    ) -> float:
        """Measure and log retention; return exact match on the stage's own set, 0 to 100."""
        results = retention.measure(moment, stage, epoch, step)
        for line in lines_of(results, moment, stage, epoch, step):
            self._log(line)
        if self.workers.main:
            at = {"stage": stage.index, "stage_name": stage.name, "step": step, "epoch": epoch}
            self.run.set_status("running", **at)
        return results[stage.plan.name]["exact_match"]

    def _announce(
        self, stage: Stage, step: int, epoch: int, loss: float | None, **known: Any
    ) -> None:
        model, steps = self.loaded.model, stage.steps
        event = TrainingEvent(model, stage.index, stage.name, step, steps, epoch, loss, **known)
        for observer in self.observers:
            observer.observe(event)

    def _log(self, line: Mapping[str, Any]) -> None:
        if self.workers.main:
            append_json_line(self.run.metrics_file, line)
            self.progress.logged(line)

    def _show(self, stage: Stage) -> None:
        stages = len(self.config.stages)
        self.progress.stage(stage.name, stage.index, stages, stage.steps, stage.mean_batch)

    def _saving(self, stage: Stage) -> Saving:
        return Saving(self.config.checkpoint, self._folder(stage) / "checkpoints")

    def _folder(self, stage: Stage) -> Path:
        return self.run.stage_folder(stage.index, stage.name)
