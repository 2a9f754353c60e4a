"""Per-example gradients from single forward and backward passes, never one pass an example.

The gradient of an example is that of its share of the set's mean loss, including `Batch.weights`,
so that the sum over a set's examples is the set's gradient. All trainable parameters are covered,
each under its name from `trainable_parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch
from geomix.gradients.calls import Call
from geomix.gradients.capture import CAPTURES, CaptureName
from geomix.gradients.inner_products import trainable_parameters, undisturbed
from geomix.gradients.rules import Rule, TokenIndices, by_autograd, guesses
from geomix.measures.factors import Factor, materialised
from geomix.measures.sketch import matrix_shape
from geomix.models.loss import weighted_loss
from geomix.util.errors import UserError

Factors = dict[str, list[Factor]]
"""Factors of each parameter in one batch; none if the loss does not depend on it."""

_EXACT = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""Share of a gradient by which rounding may change it in a model of so many rows; a wrong rule
changes it by about its whole norm."""
_CHECKED = 1 << 24
"""Entries of a gradient compared at a time."""


class PerExample:
    """Rules that give a model's per-example gradients, each validated against autograd once.

    Construction runs one pass over two artificial examples, one of which has no weight: the rules'
    result for the other must be autograd's gradient, parameter by parameter. Where a rule is wrong,
    the module's own backward pass is run once per example instead.

    Args:
        model: a causal LM of transformers; left unchanged.
        capture: `nnsight`, or `hooks` for plain torch hooks.
        autocast: creates the context of each forward pass.

    Raises:
        UserError: a parameter's gradient cannot be computed by example.
        RuntimeError: the model holds gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        capture: CaptureName = "nnsight",
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.capture: CaptureName = capture
        self.autocast = autocast
        self.parameters = trainable_parameters(model)
        self._names = {id(p): name for name, p in self.parameters.items()}
        self._watched = {path: m for path, m in model.named_modules() if self._owned(m)}
        self._rules: dict[str, Rule] = {}
        head = set(model.get_output_embeddings().modules())  # type: ignore[operator]
        self._behind = frozenset(path for path, m in model.named_modules() if m in head)
        self._heads_first: frozenset[str] = frozenset()
        with undisturbed(model):
            self._examine()

    def fits(self, model: nn.Module) -> bool:
        """Return whether these rules belong to this model with its present trainable parameters."""
        found = trainable_parameters(model)
        return model is self.model and [*map(id, found.values())] == [*self._names]

    @property
    def watched(self) -> list[str]:
        """Paths of the modules whose calls are needed (`Capture`)."""
        return [*self._watched]

    def _owned(self, module: nn.Module) -> dict[str, str]:
        """Return the trainable parameters that a module itself owns: local name to full name."""
        own = module.named_parameters(recurse=False)
        return {local: self._names[id(p)] for local, p in own if id(p) in self._names}

    def passes(
        self,
        batches: Iterable[Batch],
        names: Iterable[str] | None = None,
        *,
        weights: bool = False,
    ) -> Iterator[tuple[Batch, Factors]]:
        """Run each batch and yield the factors of its per-example gradients.

        Args:
            batches: of packed or padded rows.
            names: of the requested parameters; None is all.
            weights: whether to add to the parameters' own `.grad` as well, at half the cost of a
                pass more; the caller must then be within `undisturbed`.
        """
        asked = set(self.parameters if names is None else names)
        watched = [p for p, m in self._watched.items() if asked & {*self._owned(m).values()}]
        apart = nullcontext() if weights else undisturbed(self.model)
        with apart, CAPTURES[self.capture](self.model, watched=watched) as forward:
            for batch in batches:
                with self.autocast():
                    loss = weighted_loss(forward(batch), batch)
                outputs = [o for call in forward.calls for o in call.outputs if o.requires_grad]
                if weights or outputs:
                    torch.autograd.backward(loss, inputs=None if weights else outputs)
                yield batch, self.factors(forward.calls, batch, asked)

    @torch.no_grad()
    def factors(self, calls: Sequence[Call], batch: Batch, names: Iterable[str]) -> Factors:
        """Return the factors from the calls of one pass, after its backward pass.

        Args:
            calls: of the `watched` modules, or of those that own the parameters.
            batch: the batch of the pass.
            names: of the requested parameters.
        """
        indices = TokenIndices.of(batch, self._behind, self._heads_first)
        found: Factors = {name: [] for name in names}
        for call in calls:
            if not call.reached:
                continue
            rule, owned = self._rules[call.path], self._owned(call.module)
            with self.autocast() if rule is by_autograd else exactly(batch.ids.device):
                factors = rule(call, indices)
            for local, some in factors.items():
                if owned.get(local) in found:
                    found[owned[local]] += some
        return found

    def _examine(self) -> None:
        """Validate every rule against autograd; see the class."""
        batch = _made_up(self.model)
        with CAPTURES[self.capture](self.model, watched=self.watched) as forward:
            with self.autocast():
                loss = weighted_loss(forward(batch), batch)
            torch.autograd.backward(loss)
            length = batch.ids.shape[1]
            self._heads_first = frozenset(
                call.path
                for call in forward.calls
                for output in call.outputs[:1]
                if output.ndim == 4 and output.shape[1] != length == output.shape[2]  # noqa: PLR2004
            )
            wrong = self._choose(forward.calls, batch)
        if wrong:
            name = next(name for name in self.parameters if name in wrong)
            owner = next(m for m in self._watched.values() if name in self._owned(m).values())
            raise UserError(
                f"per-example gradients: none can be had of {name} (in {type(owner).__name__}); "
                "leave it out of what is trained, or record no per-example gradients"
            )

    def _choose(self, calls: Sequence[Call], batch: Batch) -> set[str]:
        """Assign every module its first correct rule; return the parameters without one."""
        left = {path: guesses(module) for path, module in self._watched.items()}
        wrong = set(self.parameters)
        while wrong:
            owners = {
                path for path, m in self._watched.items() if wrong & {*self._owned(m).values()}
            }
            again = [path for path in owners if left[path]]
            if not again:
                break
            for path in again:
                self._rules[path] = left[path].pop(0)
            wrong = self._wrong(calls, batch)
        return wrong

    @torch.no_grad()
    def _wrong(self, calls: Sequence[Call], batch: Batch) -> set[str]:
        """Return the parameters for which the rules disagree with autograd."""
        wrong: set[str] = set()
        scale = {
            name: max(_length(p.grad) for p in module.parameters(recurse=False))
            for module in self._watched.values()
            for name in self._owned(module).values()
        }
        found: Factors = {name: [] for name in self.parameters}
        for path, module in self._watched.items():
            mine = [call for call in calls if call.path == path]
            try:
                for name, some in self.factors(mine, batch, self._owned(module).values()).items():
                    found[name] += some
            except Exception:  # a guess about a module may fail in any way
                wrong |= {*self._owned(module).values()}
        for name, parameter in self.parameters.items():
            most = _EXACT.get(parameter.dtype, self._rounding) * scale[name]
            if name not in wrong and _differs(found[name], batch, parameter, most):
                wrong.add(name)
        return wrong

    @property
    def _rounding(self) -> float:
        """Rounding of a model in single precision; autocast rounds as half precision does."""
        return 1e-3 if isinstance(self.autocast(), nullcontext) else _EXACT[torch.bfloat16]


def exactly(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast in any context: products are not rounded to half precision."""
    return torch.autocast(device.type, enabled=False)


def _length(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.float().norm())


def _differs(factors: Sequence[Factor], batch: Batch, parameter: nn.Parameter, most: float) -> bool:
    """Return whether the artificial examples' gradients differ from (0, autograd's)."""
    height, width = matrix_shape(parameter.shape)
    expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    expected = expected.reshape(height, width)
    if not factors:
        return _length(expected) > most
    square = 0.0
    step = max(1, _CHECKED // width)
    for first in range(0, height, step):
        last = min(first + step, height)
        found = materialised(factors, batch.examples, first, last)
        found[1] -= expected[first:last]
        square += float(found.double().square().sum())
    return not square**0.5 <= most


def _made_up(model: Any) -> Batch:
    """Build two examples, the first without weight, of a length that no size in the model has."""
    sizes = {value for value in model.config.to_dict().values() if isinstance(value, int)}
    length = next(n for n in (7, 11, 13, 17, 19) if n not in sizes)
    tokens = model.get_input_embeddings().num_embeddings
    ids = (torch.arange(2 * length) * 7 + 3).reshape(2, length) % tokens
    rows, columns = torch.tensor([0, 0, 1, 1]), torch.tensor([1, length - 2, 2, length - 2])
    batch = Batch(
        ids=ids,
        positions=torch.arange(length).expand(2, -1),
        rows=rows,
        columns=columns,
        targets=ids[rows, columns + 1],
        owners=rows,
        weights=torch.tensor([0.0, 0.0, 0.5, 0.5], dtype=torch.float64),
        examples=2,
    )
    return batch.to(next(model.parameters()).device)
