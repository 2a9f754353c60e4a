"""The stages of a run, one after the other: θ_0 → θ_A → θ_B and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from geomix.atomic import append_json_line, write_json, write_text
from geomix.config import RunConfig, StageConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import chat_format
from geomix.data.describe import content_hash, describe, listed
from geomix.data.example import TokenisedExample
from geomix.data.stage import MIXED, StagePlan
from geomix.data.template import tokenise_all
from geomix.errors import Interrupted, UserError
from geomix.model.gradient import Forward
from geomix.model.load import LoadedModel
from geomix.run import Run, read_json
from geomix.train.checkpoint import Checkpoint, Position, restore, save
from geomix.train.evaluate import SetResult, evaluate
from geomix.train.events import Moment, Observer
from geomix.train.optimiser import learning_rate, make_optimiser
from geomix.train.saving import Saving
from geomix.train.step import StepResult, row_width, training_forward, training_step
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
class _Stage:
    """A stage made ready: its place, its plan and its tokens."""

    index: int
    name: str
    config: StageConfig
    plan: StagePlan
    tokenised: dict[str, list[TokenisedExample]]

    @property
    def own(self) -> list[TokenisedExample]:
        return self.tokenised[self.plan.name]

    @property
    def mixed(self) -> list[TokenisedExample]:
        return self.tokenised.get(MIXED, [])

    @property
    def steps(self) -> int:
        return self.plan.steps(self.config.stop.epochs, self.config.train.batch_size)

    def batch(self, indices: Sequence[int]) -> dict[str, list[TokenisedExample]]:
        """The examples of one step by source."""
        return {
            name: [self.tokenised[name][i] for i in places]
            for name, places in self.plan.by_set(indices).items()
        }


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
        torch.manual_seed(self.config.seed)  # dropout, for the models that have it
        tokenizer = self.loaded.tokenizer
        chat = chat_format(self.config.chat_template, tokenizer)
        stages = [
            _Stage(
                index,
                self.config.stage_name(index),
                self.config.stages[index],
                plan,
                {n: tokenise_all(tokenizer, part.examples, chat) for n, part in plan.sets.items()},
            )
            for index, plan in enumerate(plans)
        ]
        for stage in stages:
            described = describe(stage.plan, stage.tokenised)
            described["evaluated"] = {
                name: {"examples": len(found), "sha256": content_hash([e.text for e in found])}
                for name, found in self.evaluated.items()
            }
            described["chat"] = asdict(chat.literals(1))
            self._write_data(stage, described)
            write_text(self._folder(stage) / "examples.jsonl", listed(stage.plan))
        self.run.truncate_metrics(start.position.metrics if start else 0)
        first = start.position.stage if start else 0
        for stage in stages[first:]:
            self._stage(stage, stages, start if stage.index == first else None)

    def _write_data(self, stage: _Stage, described: dict[str, Any]) -> None:
        """Say what a stage trains on; a run that goes on must have the examples that it had."""
        file = self._folder(stage) / "data.json"
        if file.exists():
            known = read_json(file)
            for part in ("sets", "evaluated"):
                for name, found in described[part].items():
                    if known.get(part, {}).get(name, {}).get("sha256") != found["sha256"]:
                        source = found.get("source", {})
                        where = source.get("path") or source.get("name") or "the source"
                        raise UserError(
                            f"{file}: {name} is not what it was when the run began; restore "
                            f"{where} or begin a new run"
                        )
        write_json(file, described)

    def _stage(self, stage: _Stage, stages: Sequence[_Stage], start: Checkpoint | None) -> None:
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
                self._evaluate("start", 0, 0, stage, stages)
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
                if finished or ended:
                    results = self._evaluate_if_due(epoch + 1, step, stage, stages, ended=ended)
                    if not ended and results is not None and stopping.evaluation(results):
                        ended = True
                        self._evaluate("end", epoch + 1, step, stage, stages)
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
        stage: _Stage,
        step: int,
        indices: Sequence[int],
        forward: Forward,
        optimiser: torch.optim.Optimizer,
    ) -> StepResult:
        """One step of the optimiser, logged and shown."""
        train = stage.config.train
        rate = learning_rate(step, stage.steps, train)
        for group in optimiser.param_groups:
            group["lr"] = rate
        sources = stage.batch(indices)
        if "padding-loss" in self.config.paper_literal:
            sources = with_padding_loss(sources)
        width = row_width(train, self.loaded)
        pad, device = self.loaded.pad_id, self.loaded.device
        result = training_step(forward, optimiser, sources, train, pad, device, width)
        _check_finite(stage, step + 1, loss=result.loss, gradient_norm=result.gradient_norm)
        line = {"event": "step", "stage": stage.index, "step": step + 1, "lr": rate}
        self._log(line, result)
        self.progress.step(result)
        return result

    def _save(self, path: Path, optimiser: torch.optim.Optimizer, position: Position) -> None:
        place = replace(position, metrics=self.run.metrics_saved())
        save(path, self.loaded, optimiser, place)

    def _evaluate_if_due(
        self, epoch: int, step: int, stage: _Stage, stages: Sequence[_Stage], *, ended: bool
    ) -> float | None:
        """Exact match on the stage's own examples, if they are evaluated after this epoch."""
        every = self.config.evaluate.epochs
        if not ended and not (every and epoch % every == 0):
            return None
        return self._evaluate("end" if ended else "epoch", epoch, step, stage, stages)

    def _evaluate(
        self, moment: str, epoch: int, step: int, stage: _Stage, stages: Sequence[_Stage]
    ) -> float:
        """Measure retention: at boundaries on every set, in between on what was trained so far.

        Returns:
            Exact match on the stage's own examples, 0 to 100.
        """
        boundary = moment != "epoch"
        sets: dict[str, Sequence[TokenisedExample]] = {
            s.plan.name: s.own for s in stages if boundary or s.index <= stage.index
        }
        if boundary:
            sets |= _mixed(stages)
        sets |= self.evaluated
        name = "start" if moment == "start" else f"epoch-{epoch:03d}"
        results = evaluate(
            self.loaded,
            sets,
            stage.config.train.loss,
            self.config.evaluate.batch_size,
            self._folder(stage) / "eval" / f"{name}.jsonl",
            row_width(stage.config.train, self.loaded),
            empty_right="empty-answers" in self.config.paper_literal,
        )
        at = {"event": "evaluation", "stage": stage.index, "step": step, "epoch": epoch}
        for scored, result in results.items():
            _check_finite(stage, step, loss=result.loss)
            self._log({**at, "moment": moment, "set": scored}, result)
        self.run.set_status(
            "running", stage=stage.index, stage_name=stage.name, step=step, epoch=epoch
        )
        self.progress.evaluation(results)
        return results[stage.plan.name].exact_match

    def _announce(
        self, stage: _Stage, step: int, epoch: int, loss: float | None, *, last: bool = False
    ) -> None:
        model, steps = self.loaded.model, stage.steps
        moment = Moment(model, stage.index, stage.name, step, steps, epoch, loss, last)
        for observer in self.observers:
            observer.observe(moment)

    def _log(self, line: dict[str, Any], result: StepResult | SetResult) -> None:
        append_json_line(self.run.metrics_file, {**line, **asdict(result)})

    def _folder(self, stage: _Stage) -> Path:
        return self.run.stage_folder(stage.index, stage.name)


def _mixed(stages: Sequence[_Stage]) -> dict[str, list[TokenisedExample]]:
    """The mixed-in sets: `D_M`, or where stages mix different ones `D_M1`, `D_M2`, … by stage."""
    mixes = {stage.index: stage.mixed for stage in stages if stage.mixed}
    distinct = {tuple(example.ids for example in mixed) for mixed in mixes.values()}
    if len(distinct) <= 1:
        return {MIXED: next(iter(mixes.values()))} if mixes else {}
    return {f"{MIXED}{index + 1}": mixed for index, mixed in mixes.items()}


def _check_finite(stage: _Stage, step: int, **numbers: float) -> None:
    """Stop a run that has diverged: every number after this one would be meaningless."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise UserError(
                f"stage {stage.name}, step {step}: {name} is {number}; lower train.lr, "
                "or set train.clip"
            )
