"""What training announces to those who look on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of training between two steps: no gradient is held, the weights are consistent.

    Attributes:
        model: the model being trained; an observer leaves it as it found it.
        stage: index of the stage, from 0.
        stage_name: its name, as in the run directory.
        step: optimiser steps done in this stage; 0 before the first.
        steps: optimiser steps that the stage will do in all.
        epoch: epochs finished in this stage.
        loss: mean training loss of the step just done, in nats; None at step 0.
        last: whether the stage ends here, which a stopping rule may bring before `steps`.
    """

    model: nn.Module
    stage: int
    stage_name: str
    step: int
    steps: int
    epoch: int
    loss: float | None
    last: bool = False


class Observer(Protocol):
    """Is shown each moment: step 0 of every stage, then after every optimiser step."""

    def observe(self, moment: Moment) -> None:
        """Look at the model; leave it exactly as it was."""
