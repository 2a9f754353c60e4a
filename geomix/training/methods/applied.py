"""Methods of one stage, applied in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geomix.config.methods import MethodOptions
from geomix.data.batch import Batch
from geomix.models.distributed import Workers, gathered, like
from geomix.training.methods import METHODS
from geomix.training.methods.base import Method, StageContext, StepContext, Tensors
from geomix.util.errors import UserError

PREFIX = "method="
"""Prefix of the names of a method's state, stored with the optimiser."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Methods by name; an empty mapping is plain training.

    Attributes:
        methods: in the order in which they act.
    """

    methods: Mapping[str, Method]

    @property
    def extra(self) -> Callable[[Batch, Tensor], Tensor | None] | None:
        """Sum of the methods' extra losses; None if no method has any."""
        kinds = [type(method) for method in self.methods.values()]
        if all(kind.extra_loss is Method.extra_loss for kind in kinds):
            return None
        return self._extra

    def _extra(self, batch: Batch, logits: Tensor) -> Tensor | None:
        found = [method.extra_loss(batch, logits) for method in self.methods.values()]
        losses = [loss for loss in found if loss is not None]
        return torch.stack(losses).sum() if losses else None

    def begin_stage(self, stage: StageContext) -> None:
        """Call every method's `begin_stage`."""
        for method in self.methods.values():
            method.begin_stage(stage)

    def end_stage(self, stage: StageContext) -> None:
        """Call every method's `end_stage`."""
        for method in self.methods.values():
            method.end_stage(stage)

    def begin_step(self, step: StepContext) -> None:
        """Call every method's `begin_step`."""
        for method in self.methods.values():
            method.begin_step(step)

    def transform(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Transform the gradients in place."""
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        with torch.no_grad():
            for method in self.methods.values():
                method.transform_gradients(gradients)

    def after_update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Call every method's `after_update`, after the optimiser has updated the weights."""
        with torch.no_grad():
            for method in self.methods.values():
                method.after_update(parameters)

    def logged(self) -> dict[str, float]:
        """Return the last step's numbers, by `method.key`."""
        return {
            f"{name}.{key}": float(value)
            for name, method in self.methods.items()
            for key, value in method.logged().items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return everything that the methods carry from step to step."""
        return {
            f"{PREFIX}{name}:{key}": gathered(value)
            for name, method in self.methods.items()
            for key, value in method.state().items()
        }

    def restore(self, state: Tensors, parameters: Mapping[str, nn.Parameter]) -> None:
        """Restore the state that `state` returned.

        Args:
            state: of all methods.
            parameters: a tensor with a parameter's name and shape goes to the parameter's device.
        """
        for name, method in self.methods.items():
            start = f"{PREFIX}{name}:"
            mine = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            held = {
                key: like(value, parameters[key])
                if key in parameters and parameters[key].shape == value.shape
                else value
                for key, value in mine.items()
            }
            method.restore(held)


def applied(given: Sequence[MethodOptions]) -> Applied | None:
    """Build the methods of a stage; None if none has a strength above 0."""
    built: dict[str, Method] = {}
    for options in given:
        kind: Any = METHODS[options.name]
        if options.strength > 0 and options.name != "none":
            built[options.name] = kind(options)
    return Applied(built) if built else None


def check_methods(given: Sequence[MethodOptions], where: str, workers: Workers) -> None:
    """Reject a method that cannot work on shards where parameters are sharded.

    Raises:
        UserError: names the method.
    """
    for options in given:
        if workers.world > 1 and workers.kind == "fsdp" and not METHODS[options.name].sharded:
            raise UserError(
                f"{where}.method: {options.name} needs whole parameters in each process; set "
                "parallel: ddp"
            )
