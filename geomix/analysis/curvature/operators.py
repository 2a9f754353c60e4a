"""Hessians of sets at one checkpoint as operators on flat arrays, with their products counted."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomix.experiments.precise import PreciseArm
from geomix.gradients.differences import difference_product
from geomix.gradients.objective import Objective
from geomix.gradients.vectors import Vector, combine, from_array, norm, restricted, to_array

Floats = NDArray[np.float64]
Apply = Callable[[Vector], dict[str, Tensor]]


@dataclass(eq=False)
class SetHessian:
    """The Hessian of a set's loss at the present weights.

    Attributes:
        name: the set's name.
        facts: text with the number of facts in the loss.
        loss: in nats.
        product: product with the kept graph, or by differences of gradients.
        again: the same product with the examples in other batches.
        gauss_newton: product with the Gauss–Newton matrix; None if products are differences.
        products: number of products so far, of all kinds.
        seconds: duration of the last product.
        disagreement: largest difference between two step lengths; nan if products are exact.
    """

    name: str
    facts: str
    loss: float
    product: Apply
    again: Apply
    gauss_newton: Apply | None
    products: int = 0
    seconds: float = np.nan
    disagreement: float = np.nan

    def __call__(self, v: Vector) -> dict[str, Tensor]:
        """Multiply `v` by the Hessian."""
        begun = time.perf_counter()
        found = self.product(v)
        self.seconds = time.perf_counter() - begun
        self.products += 1
        return found


def by_differences(
    objective: Objective, arm: PreciseArm, report: Callable[[float], object]
) -> Apply:
    """Return products by central differences; `report` receives each one's disagreement."""

    def product(v: Vector) -> dict[str, Tensor]:
        found = difference_product(objective, arm, v)
        report(found.disagreement)
        return found.product

    return product


@dataclass(eq=False)
class Operator:
    """A symmetric matrix on a block of the parameters, for use by scipy or numpy.

    Attributes:
        symbol: `H_A`.
        hessians: one Hessian, or two whose symmetrised product this is.
        like: tensors of the block.
    """

    symbol: str
    hessians: tuple[SetHessian, ...]
    like: Mapping[str, Tensor]
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = list(self.like)

    @property
    def size(self) -> int:
        """Number of rows of the matrix."""
        return sum(tensor.numel() for tensor in self.like.values())

    @property
    def each(self) -> int:
        """Hessian products that one of its own takes."""
        return 4 if len(self.hessians) > 1 else 1

    def __call__(self, x: Floats) -> Floats:
        """Multiply `x`, `(P,)`, by the matrix."""
        return to_array(self.image(from_array(x, self.like)), self._names)

    def image(self, v: Vector) -> dict[str, Tensor]:
        """Multiply a vector of the block by the matrix."""
        return restricted(self._whole(v, again=False), self._names)

    def rounding(self, x: Floats) -> float:
        """Return the norm of the difference between two products, the examples in other batches."""
        v = from_array(x, self.like)
        one, other = (restricted(self._whole(v, again=a), self._names) for a in (False, True))
        return norm(combine([(1.0, one), (-1.0, other)]))

    def _whole(self, v: Vector, *, again: bool) -> dict[str, Tensor]:
        def times(hessian: SetHessian, u: Vector) -> dict[str, Tensor]:
            if not again:
                return hessian(u)
            hessian.products += 1
            return hessian.again(u)

        if len(self.hessians) == 1:
            return times(self.hessians[0], v)
        first, second = self.hessians
        there = times(first, times(second, v))
        return combine([(0.5, there), (0.5, times(second, times(first, v)))])


def peak_memory() -> float:
    """Return the process's largest resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
