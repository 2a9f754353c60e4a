"""Losses whose derivatives are known, in the place of a model's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from geomix.gradients.vectors import Vector

BLOCKS = ("a", "b")
"""Parameters of one element each."""


def vector(*values: float) -> dict[str, Tensor]:
    pairs = zip(BLOCKS, values, strict=True)
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in pairs}


class Polynomial:
    """L = base + g·θ + ½ θᵀHθ + Σ c θ³, its own mover and its own products."""

    def __init__(
        self,
        hessian: list[list[float]],
        slope: tuple[float, float] = (0.0, 0.0),
        cubic: tuple[float, float] = (0.0, 0.0),
        base: float = 1.0,
    ) -> None:
        self.hessian_matrix = torch.tensor(hessian, dtype=torch.float64)
        self.slope = torch.tensor(slope, dtype=torch.float64)
        self.cubic = torch.tensor(cubic, dtype=torch.float64)
        self.base = base
        self.at = torch.zeros(2, dtype=torch.float64)
        self.visited = 0

    def move_to(
        self, weights: str | Vector, direction: Vector | None = None, t: float = 0.0
    ) -> None:
        assert not isinstance(weights, str)
        self.at = flat(weights) + (t * flat(direction) if direction is not None else 0)
        self.visited += 1

    def loss(self) -> float:
        here = self.at
        powers = self.slope @ here + here @ self.hessian_matrix @ here / 2
        return float(self.base + powers + (self.cubic * here**3).sum())

    def gradient(self) -> dict[str, Tensor]:
        return vector(*(self.slope + self.hessian_matrix @ self.at + 3 * self.cubic * self.at**2))

    def loss_and_gradient(self) -> tuple[float, dict[str, Tensor]]:
        return self.loss(), self.gradient()

    def hessian_product(self, v: Vector) -> dict[str, Tensor]:
        return vector(*(self.hessian_matrix @ flat(v) + 6 * self.cubic * self.at * flat(v)))

    def gauss_newton_product(self, v: Vector) -> dict[str, Tensor]:
        return vector(*(self.hessian_matrix @ flat(v)))

    def hessian(self, v: Vector) -> dict[str, Tensor]:
        return self.hessian_product(v)

    def gauss_newton(self, v: Vector) -> dict[str, Tensor]:
        return self.gauss_newton_product(v)

    @contextmanager
    def kept(self) -> Iterator[Polynomial]:
        yield self


def flat(v: Vector) -> Tensor:
    return torch.cat([v[name] for name in BLOCKS])
