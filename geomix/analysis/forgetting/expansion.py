"""Change of a loss along a displacement, its expansion at the start, and the expansion's reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomix.gradients.objective import Objective
from geomix.gradients.vectors import Vector, dot, norm
from geomix.measures.expansions import Level, nested
from geomix.measures.reach import FLOOR, GRID, Reach, reach, taylor

Floats = NDArray[np.float64]

MODELS = ("first order", "Hessian", "Gauss–Newton")
"""Local models of the loss: t g·x; with ½t² xᵀHx; with the Gauss–Newton matrix in place of H."""


class Mover(Protocol):
    """Model that moves from weights to weights; `geomix.experiments.precise.PreciseArm`."""

    def move_to(
        self, weights: str | Vector, direction: Vector | None = None, t: float = 0.0
    ) -> None:
        """Set the weights to θ + t·x; nothing is written in place."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """Loss along a displacement x from θ, and its expansion at θ. Nats.

    Attributes:
        loss: L(θ).
        first: g·x.
        second: ½ xᵀHx.
        gauss_newton: ½ xᵀGx; nan if not requested.
        length: ‖x‖.
        changes: `(n,)` L(θ + t x) − L(θ) at the points of `GRID`.
    """

    loss: float
    first: float
    second: float
    gauss_newton: float
    length: float
    changes: Floats

    @property
    def change(self) -> float:
        """Change over the whole displacement: forgetting, if it is a later stage's."""
        return float(self.changes[-1])

    @property
    def rest(self) -> float:
        """Remainder R₃ beyond first and second order."""
        return self.change - self.first - self.second

    @property
    def curvature(self) -> float:
        """Curvature κ = xᵀHx / ‖x‖², nats per squared unit of the weights; nan if x is 0."""
        return 2 * self.second / self.length**2 if self.length else float("nan")

    def model(self, name: str) -> Floats:
        """Return the change `(n,)` by a local model at the points of `GRID`."""
        seconds = {"first order": 0.0, "Hessian": self.second, "Gauss–Newton": self.gauss_newton}
        return taylor(self.first, 2 * seconds[name])

    def reach(self, name: str) -> Reach:
        """Return the reach of a local model, in shares of the displacement."""
        return reach(self.model(name), self.changes, floor=FLOOR * self.loss)


def expand(
    mover: Mover, objective: Objective, start: Vector, x: Vector, *, gauss_newton: bool = True
) -> Expansion:
    """Measure a loss along a displacement and expand it at the start.

    Costs a gradient, one or two products and a forward pass for each point of `GRID`.

    Args:
        mover: moves the objective's model.
        objective: of the whole set.
        start: θ.
        x: the displacement.
        gauss_newton: whether to include the Gauss–Newton matrix.
    """
    mover.move_to(start)
    loss, gradient = objective.loss_and_gradient()
    with objective.kept() as products:
        second = dot(products.hessian(x), x) / 2
        outer = dot(products.gauss_newton(x), x) / 2 if gauss_newton else float("nan")
    first = dot(gradient, x)
    del gradient
    changes = np.array([_moved(mover, objective, start, x, t) - loss for t in GRID])
    return Expansion(loss, first, second, outer, norm(x), changes)


def _moved(mover: Mover, objective: Objective, start: Vector, x: Vector, t: float) -> float:
    mover.move_to(start, x, t)
    return objective.loss()


def permuted(x: Vector, draw: int) -> dict[str, Tensor]:
    """Permute the displacement's values within each tensor: same length, no direction.

    Args:
        x: the displacement.
        draw: number of the draw; the same one gives the same permutation.
    """
    generator = torch.Generator().manual_seed(draw)
    found = {}
    for name, tensor in x.items():
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        found[name] = tensor.reshape(-1)[order].reshape(tensor.shape)
    return found


def expansions(
    mover: Mover, objective: Objective, start: Vector, x: Vector, count: int, change: float
) -> list[Level]:
    """Expand at the starts of equal parts of a displacement; all coarser levels follow from these.

    Costs a gradient and a product for each.

    Args:
        mover: moves the objective's model.
        objective: of the whole set.
        start: θ.
        x: the displacement.
        count: parts of the finest level, a power of two.
        change: the measured change along x, nats.
    """
    slopes, curvatures = [], []
    for index in range(count):
        mover.move_to(start, x, index / count)
        slopes.append(dot(objective.gradient(), x))
        curvatures.append(dot(objective.hessian_product(x), x))
    return nested(slopes, curvatures, change)
