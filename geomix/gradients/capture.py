"""Capture of the residual stream and its gradient from one forward and backward pass.

This is the only module that imports nnsight, and only when something is recorded: the import
patches `Tensor.backward` for the whole process. `HooksCapture` does the same with plain torch
hooks; tests require the two to agree bit for bit.

Shapes: R rows of T tokens, P target tokens, V the vocabulary, D features; a list over layers has
layers + 1 entries, of which 0 is the input of the first decoder layer and l the output of layer l
(before the final norm). Other modules' outputs are stored under their names, `(R, T, …)`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from geomix.data.batch import Batch
from geomix.gradients.calls import Call, called
from geomix.models.forward import plain_forward
from geomix.models.layers import decoder_layers
from geomix.util.errors import UserError

CaptureName = Literal["nnsight", "hooks"]


class Capture(ABC):
    """Forward pass (`geomix.models.forward.Forward`) that keeps the residual stream.

    For `watched` modules it keeps every call, in `calls`: inputs, outputs and, after the backward
    pass, gradients. It works inside its own `with` block and leaves no hook and no attribute on the
    model:

        with NNsightCapture(model, ["model.layers.0.mlp"]) as forward:
            logits = forward(batch)
            torch.autograd.backward(loss_of(logits))
            forward.activations, forward.gradients, forward.module_outputs
    """

    def __init__(
        self, model: nn.Module, modules: Sequence[str] = (), watched: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.modules = {name: model.get_submodule(name) for name in modules}
        self.watched = {name: model.get_submodule(name) for name in watched}
        self.calls: list[Call] = []
        self.layers = decoder_layers(model)
        self._forward = plain_forward(model)
        self._residuals: list[Tensor] = []
        self._outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        _, first = self.layers[0]
        handle = first.register_forward_pre_hook(_make_differentiable, with_kwargs=True)
        self._handles.append(handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._residuals.clear()
        self._outputs.clear()
        self.calls.clear()

    def __call__(self, batch: Batch) -> Tensor:
        """Return the logits `(P, V)` of the batch's target tokens; drop what the last call kept."""
        self._residuals, self._outputs, self.calls = [], {}, []
        logits, self._residuals, self._outputs = self._run(batch)
        for name, output in self._outputs.items():
            if not isinstance(output, Tensor):  # for example the output of a whole model
                raise UserError(
                    f"record.modules: {name} gives out no features at every token; leave it out"
                )
        for kept in (*self._residuals, *self._outputs.values()):
            if kept.requires_grad:
                kept.retain_grad()
        return logits

    @abstractmethod
    def _run(self, batch: Batch) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """Return logits, the residual stream and the modules' outputs, still in the graph."""

    @property
    def activations(self) -> list[Tensor]:
        """Residual stream of the last pass, layers + 1 times `(R, T, D)`, detached."""
        return [residual.detach() for residual in self._residuals]

    @property
    def gradients(self) -> list[Tensor]:
        """Gradient of the loss at the same locations, layers + 1 times `(R, T, D)`.

        Raises:
            RuntimeError: no backward pass has run since the last forward pass.
        """
        gradients = [residual.grad for residual in self._residuals if residual.grad is not None]
        if not gradients or len(gradients) < len(self._residuals):
            raise RuntimeError("no gradient yet: run torch.autograd.backward(loss) first")
        return gradients

    @property
    def module_outputs(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Each module's output in the last pass, with its gradient if any reached it."""
        return {name: (out.detach(), out.grad) for name, out in self._outputs.items()}


class HooksCapture(Capture):
    """Capture with torch's own hooks."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._passing = False
        self._kept: list[Tensor] = []
        self._found: dict[str, Tensor] = {}

        def keep_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._kept = [_layer_input(args, kwargs)]

        def keep_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._kept.append(_layer_output(output))

        _, first = self.layers[0]
        self._handles.append(first.register_forward_pre_hook(keep_input, with_kwargs=True))
        for _, layer in self.layers:
            self._handles.append(layer.register_forward_hook(keep_output))
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(self._keep(name)))
        for name, module in self.watched.items():
            hook = self._watch(name)
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        return self

    def _keep(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._found[name] = _layer_output(output)

        return keep

    def _watch(self, name: str) -> Callable[..., None]:
        def watch(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            if self._passing:  # a rule may call the module again
                self.calls.append(called(name, module, (args, kwargs), output))

        return watch

    def _run(self, batch: Batch) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        self._passing = True
        try:
            logits = self._forward(batch)
        finally:
            self._passing = False
        kept, self._kept = self._kept, []
        found, self._found = self._found, {}
        return logits, kept, {name: found[name] for name in self.modules if name in found}


class NNsightCapture(Capture):
    """Capture with nnsight's activation cache; backward runs outside the trace.

    Used this way, a trace leaves no reference cycle that holds a tensor, and needs no garbage
    collection.
    """

    def __enter__(self) -> Self:
        self._nnsight = _import_nnsight()
        super().__enter__()
        # nnsight puts a `forward` on every module for good: remember the previous one.
        self._found = [
            (module, vars(module).get("forward"))
            for module in self.model.modules()
            if _STATE not in vars(module)
        ]
        self._envoy = self._nnsight.NNsight(self.model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        for module, forward in self._found:
            vars(module).pop(_STATE, None)
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward
        del self._envoy, self._found

    def _run(self, batch: Batch) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        nnsight = self._nnsight
        paths = [f"{self._envoy.path}.{name}" for name, _ in self.layers]
        by_name = {name: f"{self._envoy.path}.{name}" for name in self.modules}
        watched = {name: f"{self._envoy.path}.{name}" for name in self.watched}
        wanted = list(dict.fromkeys([*paths, *by_name.values(), *watched.values()]))
        with self._envoy.trace(batch, fn=self._forward) as tracer:
            cache = tracer.cache(modules=wanted, device=None, detach=False, include_inputs=True)
            logits = nnsight.save(tracer.result)
        residuals = [_layer_input(*cache[paths[0]].inputs)]
        residuals += [_layer_output(cache[path].output) for path in paths]
        for name, path in watched.items():
            for given, output in _visits(cache[path]) if path in cache else ():
                self.calls.append(called(name, self.watched[name], given, output))
        found = {name: path for name, path in by_name.items() if path in cache}
        return logits, residuals, {n: _layer_output(cache[p].output) for n, p in found.items()}


CAPTURES: dict[CaptureName, Callable[..., Capture]] = {
    "nnsight": NNsightCapture,
    "hooks": HooksCapture,
}


def module_names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the modules that match any of the patterns of `record.modules`, in the model's order.

    Raises:
        UserError: a pattern matches none.
    """
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"record.modules: '{pattern}' matches none of the model's {len(names)} modules, "
                f"such as {names[len(names) // 2]}; give a name, or one with '*'"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _visits(cached: Any) -> list[tuple[Any, Any]]:
    """Return inputs and output of each of a module's calls; for several, nnsight gives lists."""
    given, output = cached.inputs, cached.output
    return [(given, output)] if len(cached) == 1 else list(zip(given, output, strict=True))


_STATE = "__nnsight__"
"""Attribute of a module in which nnsight 0.8 keeps its state."""


def _import_nnsight() -> Any:
    """Import nnsight without letting it read this program's command line."""
    given, sys.argv = sys.argv, sys.argv[:1]  # it takes `-v` for its own debug mode
    try:
        import nnsight
    finally:
        sys.argv = given
    return nnsight


def _layer_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _layer_output(output: Any) -> Tensor:
    """Return a layer's hidden state, alone or first in a tuple (transformers before 5)."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _make_differentiable(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make the layer's input differentiable, as it is not after frozen embeddings."""
    hidden = _layer_input(args, kwargs)
    if not hidden.requires_grad:
        hidden.requires_grad_(True)
