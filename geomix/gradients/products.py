"""The loss of a whole set as an `Objective`: reverse over reverse through transformers' models.

`torch.func.hessian` (forward over reverse) is silently wrong on LayerNorm, so every product here
takes two backward passes. Gradients are computed in the model's dtype; over batches they add up in
float64.

Shapes: P target tokens of a batch, V the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch, Reduction
from geomix.gradients.vectors import Vector
from geomix.models.forward import Forward, plain_forward
from geomix.models.loss import token_nll

Product = Callable[[Vector], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class SetObjective:
    """Mean loss of a set, whose batches carry the weights of its mean.

    The model must be in evaluation mode and differentiable twice: eager attention, no autocast, no
    activation checkpointing. Its `.grad` is neither read nor written.

    Attributes:
        model: a causal LM of transformers.
        batches: the whole set, on the model's device.
        reduction: of the mean, for reports.
        parameters: those that the derivatives are with respect to, by name; all require a gradient.
        facts: examples in the batches.
        of: examples in the whole set; more than `facts` if only the first ones are used.
    """

    model: nn.Module
    batches: Sequence[Batch]
    reduction: Reduction
    parameters: Mapping[str, nn.Parameter]
    facts: int = 0
    of: int = 0

    @property
    def counted(self) -> str:
        """Text `100 facts`, or `64 of 100 facts`."""
        count = f"{self.facts} of " * (self.facts < self.of) + str(self.of)
        return f"{count} fact" + "s" * (self.of != 1)

    def loss(self) -> float:
        """Return the loss, in nats."""
        with torch.no_grad():
            return math.fsum(_loss(self._forward(b), b).item() for b in self.batches)

    def gradient(self) -> dict[str, Tensor]:
        """Return its gradient."""
        return self.loss_and_gradient()[1]

    def loss_and_gradient(self) -> tuple[float, dict[str, Tensor]]:
        """Return both from one pass."""
        losses: list[float] = []

        def one(batch: Batch) -> list[Tensor]:
            loss = _loss(self._forward(batch), batch)
            losses.append(loss.item())
            return _grad([loss], self._tensors, keep=False)

        found = self._summed(one)
        return math.fsum(losses), found

    def hessian_product(self, v: Vector) -> dict[str, Tensor]:
        """Return the Hessian times `v`; the graph is rebuilt for each batch."""
        return self._summed(lambda batch: _Graph(self, batch).hessian(v, keep=False))

    def gauss_newton_product(self, v: Vector) -> dict[str, Tensor]:
        """Return the Gauss–Newton matrix times `v`; the graph is rebuilt for each batch."""
        return self._summed(lambda batch: _Graph(self, batch).gauss_newton(v, keep=False))

    @contextmanager
    def kept(self) -> Iterator[KeptProducts]:
        """Provide products at the present weights; they keep these weights if the model moves.

        The graph of a single batch is kept. With several batches each product rebuilds the graphs.
        """
        weights = {name: p.data for name, p in self.parameters.items()}
        graph = _Graph(self, self.batches[0]) if len(self.batches) == 1 else None
        yield KeptProducts(self, weights, graph)

    @property
    def _tensors(self) -> list[nn.Parameter]:
        return list(self.parameters.values())

    @property
    def _forward(self) -> Forward:
        return plain_forward(self.model)

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Name tensors that are in the parameters' order."""
        return dict(zip(self.parameters, tensors, strict=True))

    def _summed(self, one: Callable[[Batch], list[Tensor]]) -> dict[str, Tensor]:
        """Sum over batches, in float64 if there are several."""
        if len(self.batches) == 1:
            return self.named(one(self.batches[0]))
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self._tensors]
        for batch in self.batches:
            for sum_, part in zip(total, one(batch), strict=True):
                sum_.add_(part)
        return self.named([t.to(p.dtype) for t, p in zip(total, self._tensors, strict=True)])


@dataclass(frozen=True, eq=False)
class KeptProducts:
    """Products at the weights that the model had at the start (`Products`).

    Attributes:
        objective: the loss.
        weights: the tensors that were the weights.
        graph: of the only batch; None if each product rebuilds the graphs.
    """

    objective: SetObjective
    weights: Vector
    graph: _Graph | None

    def hessian(self, v: Vector) -> dict[str, Tensor]:
        """Return the Hessian times `v`."""
        with self._there():
            if self.graph is None:
                return self.objective.hessian_product(v)
            return self.objective.named(self.graph.hessian(v))

    def gauss_newton(self, v: Vector) -> dict[str, Tensor]:
        """Return the generalised Gauss–Newton matrix times `v`."""
        with self._there():
            if self.graph is None:
                return self.objective.gauss_newton_product(v)
            return self.objective.named(self.graph.gauss_newton(v))

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Restore the old weights within the block: a traversed graph reads parameters' data."""
        parameters = self.objective.parameters
        moved = {name: p.data for name, p in parameters.items()}
        try:
            exchange(parameters, self.weights)
            yield
        finally:
            exchange(parameters, moved)


def exchange(parameters: Mapping[str, nn.Parameter], weights: Vector) -> None:
    """Replace the parameters' data by tensors, without a copy."""
    for name, parameter in parameters.items():
        parameter.data = weights[name]


class _Graph:
    """Graph of one batch at the present weights; derivatives are added when requested.

    A product that does not keep it frees it on the way, which takes less memory; it is the last.
    """

    def __init__(self, objective: SetObjective, batch: Batch) -> None:
        self._names = list(objective.parameters)
        self._tensors = list(objective.parameters.values())
        self._batch = batch
        with torch.enable_grad():
            self._logits = plain_forward(objective.model)(batch)
        self._gradients: list[Tensor] = []
        self._outer: tuple[Tensor, list[Tensor]] | None = None

    def hessian(self, v: Vector, *, keep: bool = True) -> list[Tensor]:
        if not self._gradients:
            with torch.enable_grad():
                self._gradients = _grad(
                    [_loss(self._logits, self._batch)], self._tensors, create_graph=True
                )
        return _grad(self._gradients, self._tensors, self._of(v), keep=keep)

    def gauss_newton(self, v: Vector, *, keep: bool = True) -> list[Tensor]:
        """Return Jᵀ B J v, where J v is the derivative of u ↦ Jᵀ u, which is linear in u."""
        if self._outer is None:
            with torch.enable_grad():
                u = torch.zeros_like(self._logits, requires_grad=True)
                pulled = _grad([self._logits], self._tensors, [u], create_graph=True)
            self._outer = u, pulled
        u, pulled = self._outer
        (pushed,) = _grad(pulled, [u], self._of(v), keep=keep)
        p = self._logits.detach().softmax(dim=-1)
        curved = p * (pushed - (p * pushed).sum(dim=-1, keepdim=True))
        weights = self._batch.weights.to(p.dtype)
        return _grad([self._logits], self._tensors, [curved * weights[:, None]], keep=keep)

    def _of(self, v: Vector) -> list[Tensor]:
        return [
            v[name].to(p) if name in v else torch.zeros_like(p)
            for name, p in zip(self._names, self._tensors, strict=True)
        ]


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the batch's share of the mean loss, summed in float64."""
    return (token_nll(logits, batch).double() * batch.weights).sum()


def _grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    directions: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    keep: bool = True,
) -> list[Tensor]:
    """Call `torch.autograd.grad`; 0 where no path leads to an input. `keep` keeps the graph."""
    chosen = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not chosen:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = torch.autograd.grad(
        [outputs[i] for i in chosen],
        inputs,
        None if directions is None else [directions[i] for i in chosen],
        retain_graph=keep,
        create_graph=create_graph,
        allow_unused=True,
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(inputs, found, strict=True)
    ]
