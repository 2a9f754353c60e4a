"""Training events and their observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SecondMoments:
    """Adam's second moments v̂ and their time.

    Attributes:
        stage: index of the stage whose optimiser has them.
        step: optimiser steps done in that stage.
        eps: the number that the optimiser adds to their roots.
        read: returns them, bias-corrected, by the parameter's name.
    """

    stage: int
    step: int
    eps: float
    read: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class TrainingEvent:
    """Training event, between two steps: no gradient is held, the weights are consistent.

    Attributes:
        model: the model being trained; an observer leaves it unchanged.
        stage: index of the stage, from 0.
        stage_name: its name, as in the run directory.
        step: optimiser steps done in this stage; 0 before the first.
        steps: total optimiser steps of the stage.
        epoch: epochs finished in this stage.
        loss: mean training loss of the last step, in nats; None at step 0.
        last: whether the stage ends here, which a stopping rule may cause before `steps`.
        resumed: whether the stage resumes here from a checkpoint: no step was taken.
        second_moments: Adam's at present; None before its first step, and if unknown.
        update: returns the parts of the last step, by part (a source, `decay`) and by the
            parameter's name; None if unknown.
    """

    model: nn.Module
    stage: int
    stage_name: str
    step: int
    steps: int
    epoch: int
    loss: float | None
    last: bool = False
    resumed: bool = False
    second_moments: SecondMoments | None = None
    update: Callable[[], Mapping[str, Mapping[str, Tensor]]] | None = None


class Observer(Protocol):
    """Receiver of training events: step 0 of every stage, then after every optimiser step.

    A stage that resumes from a checkpoint first sends that one.
    """

    def observe(self, event: TrainingEvent) -> None:
        """Observe the model; leave it exactly unchanged."""
