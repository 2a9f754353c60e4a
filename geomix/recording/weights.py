"""Observer of training that saves the weights of the recorded checkpoints within a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geomix.config.schedule import parse
from geomix.models.distributed import ALONE, Workers, gathered
from geomix.models.load import LoadedModel
from geomix.training.checkpoint import KEPT, Position, save
from geomix.training.observer import TrainingEvent
from geomix.training.setup import whole_weights


@dataclass(frozen=True, slots=True)
class WeightsKeeper:
    """Saver of the model with Adam's v̂ in `weights/step-000004` of the stage's folder.

    The base model and the end of a stage are not included: those are always kept.

    Attributes:
        folder_of: returns the folder of a stage, by its index and name.
        at: the steps, see `geomix.config.schedule.parse`.
        loaded: the trained model and its tokenizer.
        workers: the processes that train it; the first one writes.
    """

    folder_of: Callable[[int, str], Path]
    at: Sequence[str | int]
    loaded: LoadedModel
    workers: Workers = ALONE

    def observe(self, event: TrainingEvent) -> None:
        """Save this checkpoint if it is scheduled; an existing one is complete and stays."""
        if event.resumed or event.last or event.step == 0:
            return
        if event.step not in parse(self.at).steps_of(event.stage, event.steps):
            return
        second = event.second_moments
        known = second.read() if second is not None else {}
        state = {name: gathered(value) for name, value in known.items()}
        weights = whole_weights(self.loaded, self.workers)  # gathered from all processes
        if self.workers.main:
            folder = self.folder_of(event.stage, event.stage_name) / KEPT
            place = Position(event.stage, epoch=event.epoch, step=event.step)
            save(folder / f"step-{event.step:06d}", self.loaded, state, place, weights)
