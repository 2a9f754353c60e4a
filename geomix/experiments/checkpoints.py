"""A run's models at its checkpoints, with the data that they were trained on.

Each stage is prepared as for training (precision, trained parameters, adapters), with the
checkpoint's weights and second moments, so that results equal those computed during training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat
from geomix.data.tokenise import tokenise_all
from geomix.experiments.prepare import Prepared, Ready, base_of, load_base
from geomix.models.distributed import ALONE
from geomix.models.load import CPU, LoadedModel, default_device, load_parameters, load_tokenizer
from geomix.runs.directory import RunDirectory
from geomix.training.base_model import check_base
from geomix.training.checkpoint import FINAL, KEPT, Checkpoint, check, saved_second_moments
from geomix.training.checkpoint_rotation import steps_in
from geomix.training.observer import TrainingEvent
from geomix.training.reuse import FILE as REUSED
from geomix.training.setup import Setup, weights_dtype
from geomix.training.stage import Stage, check_described, check_unchanged, stages_of
from geomix.util.errors import UserError
from geomix.util.reading import read_json

Log = Callable[[str], object]

_STEP = len("step-")


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint of a run whose weights exist.

    Attributes:
        stage: index of the stage, from 0.
        step: optimiser steps done in it.
        folder: the checkpoint's; None for θ_0, which is the base model itself.
    """

    stage: int
    step: int
    folder: Path | None = None

    @property
    def last(self) -> bool:
        """True if the stage ends here."""
        return self.folder is not None and self.folder.name == FINAL

    def __str__(self) -> str:
        return f"stage {self.stage + 1} step {self.step}"


@dataclass(frozen=True, slots=True)
class Revisit:
    """One arm whose checkpoints are loaded again.

    Attributes:
        arm: its run.
        config: its configuration.
        ready: holds θ_0 if it is already loaded.
        prepared: its examples.
        chat: its chat format, as at the run's start.
    """

    arm: RunDirectory
    config: RunConfig
    ready: Ready
    prepared: Prepared
    chat: ChatFormat

    def stages(self) -> list[Stage]:
        """Return the stages, whose examples must be those of the training.

        Raises:
            UserError: they are not.
        """
        tokenizer = load_tokenizer(self.config.model)
        chat = self.chat
        file = self.arm.path / REUSED
        known = read_json(file)["steps"] if file.exists() else {}
        steps = {int(index): count for index, count in known.items()}
        stages = stages_of(self.config, self.prepared.plans, tokenizer, chat, steps)
        evaluated = {
            name: tokenise_all(tokenizer, examples, chat)
            for name, examples in self.prepared.evaluated.items()
        }
        for stage in stages:
            folder = self.arm.stage_folder(stage.index, stage.name)
            file = folder / "data.json"
            if any((folder / "checkpoints").glob("*")):
                check_described(file)
            check_unchanged(file, stage.described(dict(evaluated), chat))
        return stages

    def checkpoints(self, log: Log) -> list[StoredCheckpoint]:
        """Return θ_0 and every checkpoint, in order; see `stored_checkpoints`."""
        return stored_checkpoints(self.arm, self.config, log)

    def event(
        self, checkpoint: StoredCheckpoint, stage: Stage
    ) -> tuple[LoadedModel, TrainingEvent]:
        """Return the model of a checkpoint, prepared as for training, and its training event.

        Raises:
            UserError: the checkpoint is damaged, or the base model has changed.
        """
        start = None if checkpoint.folder is None else check(checkpoint.folder)
        loaded, steps, second = self._weights(start), stage.steps, None
        if stage.config.from_ is None:
            setup = Setup.of(self.config, stage, loaded, ALONE, start)
            second = setup.second_moments(stage.index, checkpoint.step)
        elif checkpoint.last:  # a reused stage is never prepared for training
            loaded.model.to(weights_dtype(self.config, stage.index))
            steps = checkpoint.step
        if start is not None and not start.is_within:
            second = saved_second_moments(start, stage.index, checkpoint.step)
        at = (stage.index, stage.name, checkpoint.step, steps)
        return loaded, TrainingEvent(
            loaded.model, *at, 0, None, checkpoint.last, second_moments=second
        )

    def weights(self, checkpoint: StoredCheckpoint) -> dict[str, Tensor]:
        """Return the parameters at a checkpoint by name, on the CPU, as they were saved.

        Raises:
            UserError: the checkpoint is damaged, or the base model has changed.
        """
        start = None if checkpoint.folder is None else check(checkpoint.folder)
        if start is None:
            base = load_base(base_of(self.config), CPU)
            check_base(self.arm, self.config.model, base)
            return {name: p.detach() for name, p in base.model.named_parameters()}
        return load_parameters(start.path)

    def _weights(self, start: Checkpoint | None) -> LoadedModel:
        """Load the model of a checkpoint, or θ_0; no other one stays in memory."""
        base, self.ready.loaded = self.ready.loaded, None
        name, halved = base_of(self.config)
        if start is not None or base is None:
            del base
            path = name if start is None else str(start.path)
            base = load_base((path, halved), default_device())
        if start is None:
            check_base(self.arm, name, base)
        return base


def stored_checkpoints(arm: RunDirectory, config: RunConfig, log: Log) -> list[StoredCheckpoint]:
    """Return θ_0 and every checkpoint of an arm, in order; nothing is loaded.

    Args:
        arm: its run.
        config: its configuration.
        log: receives lines about unusable checkpoints.

    Raises:
        UserError: the number of steps of a finished stage is unknown.
    """
    checkpoints = [StoredCheckpoint(0, 0)]
    for index, stage in enumerate(config.stages):
        stage_folder = arm.stage_folder(index, config.stage_name(index))
        folder = stage_folder / "checkpoints"
        found = [*steps_in(folder), *steps_in(stage_folder / KEPT)]
        within = {int(path.name[_STEP:]): path for path in found}
        checkpoints += [StoredCheckpoint(index, step, within[step]) for step in sorted(within)]
        if (folder / FINAL).is_dir():
            if stage.train.lora is not None and stage.from_ is None:
                log(
                    f"{folder / FINAL}: left out; its adapters are merged into the weights, so "
                    "that their gradients can be recorded only while they train"
                )
            else:
                checkpoints.append(StoredCheckpoint(index, _end(arm, index), folder / FINAL))
    return checkpoints


def _end(arm: RunDirectory, stage: int) -> int:
    """Return the number of optimiser steps of a finished stage."""
    done = arm.steps_done()
    if stage not in done:
        raise UserError(f"{arm.metrics_file}: no steps of stage {stage + 1}; restore the file")
    return done[stage]
