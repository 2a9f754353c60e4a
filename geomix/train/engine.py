"""The stages of a run, one after the other: θ_0 → θ_A → θ_B and so on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from geomix.atomic import append_json_line, write_json, write_text
from geomix.config import RunConfig, StageConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import chat_format
from geomix.data.describe import describe, listed
from geomix.data.example import TokenisedExample
from geomix.data.stage import MIXED, StagePlan
from geomix.data.template import tokenise_all
from geomix.errors import UserError
from geomix.model.load import LoadedModel
from geomix.run import Run
from geomix.train.checkpoint import save_final
from geomix.train.evaluate import SetResult, evaluate
from geomix.train.events import Moment, Observer
from geomix.train.optimiser import learning_rate, make_optimiser
from geomix.train.step import StepResult, row_width, training_forward, training_step


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

    The trajectory is a function of the configuration alone: no observer and no evaluation
    changes it, and on one machine with one thread count it is the same bit for bit.

    Attributes:
        config: the run.
        loaded: θ_0; training changes its weights in place.
        run: where everything is written; the caller holds its lock.
        observers: are shown every moment of the training.
        progress: is told what to show.
        evaluated: sets that are evaluated besides the stages' own, by name.
    """

    config: RunConfig
    loaded: LoadedModel
    run: Run
    observers: Sequence[Observer]
    progress: Progress
    evaluated: Mapping[str, Sequence[TokenisedExample]] = field(default_factory=dict)

    def train(self, plans: Sequence[StagePlan]) -> None:
        """Train every stage.

        Args:
            plans: the examples of the stages (`geomix.data.stage.plan_stages`).
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
            described["chat"] = asdict(chat.literals(1))
            write_json(self._folder(stage) / "data.json", described)
            write_text(self._folder(stage) / "examples.jsonl", listed(stage.plan))
        for stage in stages:
            self._stage(stage, stages)

    def _stage(self, stage: _Stage, stages: Sequence[_Stage]) -> None:
        """θ before the stage → θ after it."""
        model, train = self.loaded.model, stage.config.train
        epochs, device = stage.config.stop.epochs, self.loaded.device
        self.progress.stage(stage.name, stage.steps)
        optimiser = make_optimiser(model, train)
        forward = training_forward(model, train.precision, device)
        if stage.index == 0:  # later stages begin where the one before was evaluated
            self._evaluate("start", 0, 0, stage, stages)
        self._announce(stage, 0, 0, None)
        model.train()
        step = 0
        for epoch in range(epochs):
            batches = stage.plan.batches(self.config.seed, stage.index, epoch, train.batch_size)
            for number, indices in enumerate(batches, start=1):
                rate = learning_rate(step, stage.steps, train)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                sources = stage.batch(indices)
                if "padding-loss" in self.config.paper_literal:
                    sources = with_padding_loss(sources)
                result = training_step(
                    forward,
                    optimiser,
                    sources,
                    train,
                    self.loaded.pad_id,
                    device,
                    row_width(train, self.loaded),
                )
                step += 1
                _check_finite(stage, step, loss=result.loss, gradient_norm=result.gradient_norm)
                self._log({"event": "step", "stage": stage.index, "step": step, "lr": rate}, result)
                self.progress.step(result)
                self._announce(stage, step, epoch + (number == len(batches)), result.loss)
            last, every = epoch + 1 == epochs, self.config.evaluate.epochs
            if last or (every and (epoch + 1) % every == 0):
                self._evaluate("end" if last else "epoch", epoch + 1, step, stage, stages)
        model.eval()
        save_final(self._folder(stage) / "checkpoints" / "final", self.loaded, optimiser)

    def _evaluate(
        self, moment: str, epoch: int, step: int, stage: _Stage, stages: Sequence[_Stage]
    ) -> None:
        """Measure retention: at boundaries on every set, in between on what was trained so far."""
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

    def _announce(self, stage: _Stage, step: int, epoch: int, loss: float | None) -> None:
        moment = Moment(self.loaded.model, stage.index, stage.name, step, stage.steps, epoch, loss)
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
