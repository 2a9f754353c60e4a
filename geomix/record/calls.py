"""Every call of chosen modules in one forward pass: inputs, outputs and, after backward, gradients.

Through nnsight's cache, or with plain torch hooks; the tests hold the two to agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from geomix.data.batch import Batch
from geomix.record.capture import CaptureName, HooksCapture, NNsightCapture


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module.

    Attributes:
        path: qualified name of the module.
        module: itself.
        args: what it was given by place.
        kwargs: what it was given by name.
        outputs: the tensors of its output; those that a backward pass reached have their `.grad`.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Tensor, ...]

    @property
    def input(self) -> Tensor:
        """The first thing it was given."""
        given: Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return given.detach()

    @property
    def gradient(self) -> Tensor | None:
        """Gradient of the loss at the first output; None where the loss does not depend on it."""
        return self.outputs[0].grad if self.outputs else None

    @property
    def reached(self) -> bool:
        """Whether the loss depends on any of its outputs."""
        return any(output.grad is not None for output in self.outputs)


def tensors(output: Any) -> tuple[Tensor, ...]:
    """The tensors of a module's output."""
    found = output if isinstance(output, tuple | list) else (output,)
    return tuple(o for o in found if isinstance(o, Tensor))


def _call(path: str, module: nn.Module, given: tuple[Any, Any], output: Any) -> Call:
    outputs = tensors(output)
    for tensor in outputs:
        if tensor.requires_grad:
            tensor.retain_grad()
    return Call(path, module, given[0], given[1], outputs)


class HooksCalls(HooksCapture):
    """Calls through torch's own hooks.

    Works as a `Capture` does, in its own `with` block, and is a `Forward`; after the backward pass
    each output that was reached has its `.grad`.
    """

    def __init__(self, model: nn.Module, watched: Mapping[str, nn.Module]) -> None:
        super().__init__(model)
        self.watched = watched
        self.calls: list[Call] = []
        self._passing = False

    def __enter__(self) -> HooksCalls:
        super().__enter__()

        def keep(path: str) -> Any:
            def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                if self._passing:  # a rule may call the module again
                    self.calls.append(_call(path, module, (args, kwargs), output))

            return hook

        for path, module in self.watched.items():
            self._handles.append(module.register_forward_hook(keep(path), with_kwargs=True))
        return self

    def __exit__(self, *ended: Any) -> None:
        super().__exit__(*ended)
        self.calls.clear()

    def __call__(self, batch: Batch) -> Tensor:
        """The logits `(P, V)`; what the last call kept is let go."""
        self.calls.clear()
        self._passing = True
        try:
            return self._forward(batch)
        finally:
            self._passing = False


class NNsightCalls(NNsightCapture):
    """The same through nnsight's activation cache."""

    def __init__(self, model: nn.Module, watched: Mapping[str, nn.Module]) -> None:
        super().__init__(model)
        self.watched = watched
        self.calls: list[Call] = []

    def __exit__(self, *ended: Any) -> None:
        super().__exit__(*ended)
        self.calls.clear()

    def __call__(self, batch: Batch) -> Tensor:
        """The logits `(P, V)`; what the last call kept is let go."""
        self.calls.clear()
        nnsight = self._nnsight
        paths = {f"{self._envoy.path}.{path}": path for path in self.watched}
        with self._envoy.trace(batch, fn=self._forward) as tracer:
            cache = tracer.cache(modules=[*paths], device=None, detach=False, include_inputs=True)
            logits: Tensor = nnsight.save(tracer.result)
        for full, path in paths.items():
            if full not in cache:  # never called
                continue
            given, put = cache[full].inputs, cache[full].output
            visits = zip(given, put, strict=True) if len(cache[full]) > 1 else [(given, put)]
            for inputs, output in visits:
                self.calls.append(_call(path, self.watched[path], inputs, output))
        return logits


Calls = HooksCalls | NNsightCalls

CALLS: dict[CaptureName, type[HooksCalls] | type[NNsightCalls]] = {
    "nnsight": NNsightCalls,
    "hooks": HooksCalls,
}
