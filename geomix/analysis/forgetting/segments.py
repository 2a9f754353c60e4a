"""Gradients along the kept checkpoints of a stage: norm, cosine and length of each segment.

Shapes: K segments, M parameter tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomix.analysis.forgetting.expansion import Mover
from geomix.analysis.forgetting_path.notes import MOST_ERROR, MOST_MOVED
from geomix.gradients.objective import Objective
from geomix.gradients.vectors import Vector, combine, dots, minus
from geomix.measures.line_integral import moved
from geomix.measures.path_factors import Factors, factors_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segments:
    """Path in K straight segments, with Simpson's mean gradient ḡ on each.

    Attributes:
        steps: `(K + 1,)` optimiser steps of the stage at the segments' ends.
        losses: `(K + 1,)` measured there, nats.
        inner: `(K, M)` ḡ·d of each tensor, nats.
        gradients: `(K, M)` ‖ḡ‖².
        displacements: `(K, M)` ‖d‖².
    """

    steps: tuple[int, ...]
    losses: Floats
    inner: Floats
    gradients: Floats
    displacements: Floats

    @property
    def shares(self) -> list[Fraction]:
        """The steps as shares of the stage's."""
        return [Fraction(step, self.steps[-1]) for step in self.steps]

    @property
    def factors(self) -> Factors:
        """Factors of the whole model, `(K,)`."""
        return factors_of(*(v.sum(axis=1) for v in self._sums))

    def grouped(self, index: NDArray[np.int64]) -> Factors:
        """Return the factors of groups of parameters, `(K, g)`.

        Args:
            index: `(M,)` the group of each tensor.
        """
        groups = np.eye(int(index.max()) + 1)[index]
        return factors_of(*(v @ groups for v in self._sums))

    @property
    def _sums(self) -> tuple[Floats, Floats, Floats]:
        return self.inner, self.gradients, self.displacements

    @property
    def measured(self) -> Floats:
        """Measured change of the loss `(K,)`, nats."""
        return np.asarray(np.diff(self.losses))

    @property
    def errors(self) -> Floats:
        """Error `(K,)` |Simpson − measured|, nats."""
        return np.asarray(np.abs(self.inner.sum(axis=1) - self.measured))

    @property
    def error(self) -> float:
        """Error of Simpson's total, as a share of the measured change; inf if that is 0."""
        change = float(self.losses[-1] - self.losses[0])
        off = abs(float(self.inner.sum()) - change)
        return off / abs(change) if change else float("inf")


@dataclass(frozen=True, slots=True)
class Path:
    """Path in K segments and in half as many; what differs between the two is no finding.

    Attributes:
        fine: K segments.
        coarse: each two of them merged to one straight line; an odd last one stays.
    """

    fine: Segments
    coarse: Segments

    def moved(self, index: NDArray[np.int64]) -> float:
        """Return the share of the split by group that moves with half the segments."""
        fine, coarse = (s.grouped(index).integral.sum(axis=0) for s in (self.fine, self.coarse))
        return moved(fine, coarse)

    def fails(self, index: NDArray[np.int64]) -> str:
        """Return why no claim can rest on the quadrature; "" if both checks hold."""
        if not self.fine.error <= MOST_ERROR:
            off = f"{self.fine.error:.2g} of the change"
            return f"Simpson's total is {off} off ({MOST_ERROR:g} at most)"
        if not (share := self.moved(index)) <= MOST_MOVED:
            return f"merging segments moves {share:.2g} of the split ({MOST_MOVED:g} at most)"
        return ""


@dataclass(frozen=True, slots=True)
class _Visited:
    """A visited checkpoint."""

    weights: Vector
    loss: float
    gradient: Vector


def follow(
    mover: Mover,
    objective: Objective,
    weights: Callable[[str], Vector],
    names: Sequence[str],
    steps: Sequence[int],
    advance: Callable[[int], object] = lambda _: None,
) -> Path:
    """Compute the gradients along a path.

    Costs 2½ gradients a segment; at most five gradients and three copies of the weights are held.

    Args:
        mover: moves the objective's model.
        objective: of the whole set.
        weights: returns those of a checkpoint, by its name.
        names: K + 1 checkpoints.
        steps: of the stage, at each.
        advance: called when a segment is done.
    """

    def visit(name: str) -> _Visited:
        there = weights(name)
        mover.move_to(there)
        return _Visited(there, *objective.loss_and_gradient())

    def row(first: _Visited, last: _Visited) -> Floats:
        displacement = minus(last.weights, first.weights)
        mover.move_to(first.weights, displacement, 0.5)
        return _products(first.gradient, objective.gradient(), last.gradient, displacement)

    fine: list[Floats] = []
    coarse: list[Floats] = []
    here = visit(names[0])
    before, losses = here, [here.loss]
    for k, name in enumerate(names[1:]):
        last = visit(name)
        fine.append(row(here, last))
        if k % 2:
            coarse.append(row(before, last))
            before = last
        here = last
        losses.append(here.loss)
        advance(1)
    if len(fine) % 2:
        coarse.append(fine[-1])
    ends = [*range(0, len(names), 2)] + [len(names) - 1] * (len(fine) % 2)
    return Path(
        _segments(steps, losses, fine),
        _segments([steps[i] for i in ends], [losses[i] for i in ends], coarse),
    )


def _products(
    start: Vector, middle: Vector, end: Vector, displacement: dict[str, Tensor]
) -> Floats:
    """Return `(3, M)` ḡ·d, ‖ḡ‖² and ‖d‖² of each tensor."""
    mean = combine([(1 / 6, start), (4 / 6, middle), (1 / 6, end)])
    found = (dots(mean, displacement), dots(mean, mean), dots(displacement, displacement))
    return np.array([[one.get(name, 0.0) for name in displacement] for one in found])


def _segments(steps: Sequence[int], losses: Sequence[float], rows: list[Floats]) -> Segments:
    inner, gradients, displacements = np.stack(rows, axis=1)
    return Segments(tuple(steps), np.array(losses), inner, gradients, displacements)


def spread(count: int) -> list[int]:
    """Return the segments that are measured more closely: 0, 1, 2, 4, 8, …, below a count."""
    return sorted({0, *(2**k for k in range(count.bit_length()))} & set(range(count)))
