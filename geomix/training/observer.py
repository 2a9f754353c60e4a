"""What training announces to those who look on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SecondMoments:
    """Adam's second moments v̂, and of when.

    Attributes:
        stage: index of the stage whose optimiser has them.
        step: optimiser steps done in that stage.
        eps: what the optimiser adds to their roots.
        read: gives them, bias-corrected, by the parameter's name.
    """

    stage: int
    step: int
    eps: float
    read: Callable[[], Mapping[str, Tensor]]


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
        resumed: whether the stage goes on here, from a checkpoint: nothing new has happened.
        second_moments: of Adam now; None before its first step, and where none are known.
        update: gives the parts of the step just done, by part (a source, `decay`) and by the
            parameter's name; None where they are not known.
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
    """Is shown each moment: step 0 of every stage, then after every optimiser step.

    A stage that goes on from a checkpoint shows that one first.
    """

    def observe(self, moment: Moment) -> None:
        """Look at the model; leave it exactly as it was."""
