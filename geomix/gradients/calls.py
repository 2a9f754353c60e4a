"""A call of a module in a forward pass: its inputs, outputs and, after backward, gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module.

    Attributes:
        path: qualified name of the module.
        module: the module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        outputs: the tensors of its output; those that a backward pass reached have their `.grad`.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Tensor, ...]

    @property
    def input(self) -> Tensor:
        """First argument."""
        given: Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return given.detach()

    @property
    def gradient(self) -> Tensor | None:
        """Gradient of the loss at the first output; None where the loss does not depend on it."""
        return self.outputs[0].grad if self.outputs else None

    @property
    def reached(self) -> bool:
        """True if the loss depends on any of its outputs."""
        return any(output.grad is not None for output in self.outputs)


def tensors(output: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a module's output."""
    found = output if isinstance(output, tuple | list) else (output,)
    return tuple(o for o in found if isinstance(o, Tensor))


def called(path: str, module: nn.Module, given: tuple[Any, Any], output: Any) -> Call:
    """Record a call just made; its outputs will keep their gradients.

    Args:
        path: qualified name of the module.
        module: the module.
        given: its positional and keyword arguments.
        output: its output.
    """
    outputs = tensors(output)
    for tensor in outputs:
        if tensor.requires_grad:
            tensor.retain_grad()
    return Call(path, module, given[0], given[1], outputs)
