"""Hessian products by differences of gradients, for models that cannot be differentiated twice.

Flash attention and sharded weights have no second derivative. A difference of two gradients is
always available; two step lengths show its error.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geomix.gradients.objective import Objective, Weights
from geomix.gradients.vectors import Vector, combine, minus, norm, scaled

STEPS = (2e-5, 2e-4)
"""Lengths of the two steps, as shares of the norm of the weights."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Product by central differences.

    Attributes:
        product: from the longer step, whose rounding error is smaller.
        disagreement: norm of the difference between the two steps' products, as a share of it.
    """

    product: dict[str, Tensor]
    disagreement: float


def difference_product(
    objective: Objective, weights: Weights, v: Vector, steps: tuple[float, float] = STEPS
) -> Difference:
    """Return the Hessian times `v`: `(g(θ + εv̂) − g(θ − εv̂)) ‖v‖ / 2ε` for two ε; four gradients.

    Args:
        objective: the loss.
        weights: its model's, exchanged meanwhile and then restored.
        v: of the parameters that train.
        steps: the shorter and the longer ε, as shares of ‖θ‖.
    """
    here, length = weights.here(), norm(v)
    if not length:
        return Difference(scaled(v, 0.0), 0.0)
    found = []
    try:
        for share in steps:
            step = share * norm(here)
            ends = []
            for sign in (1, -1):
                weights.move_to({**here, **combine([(1, _of(here, v)), (sign * step / length, v)])})
                ends.append(objective.gradient())
            found.append(scaled(minus(*ends), length / (2 * step)))
    finally:
        weights.move_to(here)
    size = norm(found[1])
    apart = norm(minus(found[0], found[1]))
    return Difference(found[1], apart / size if size else 0.0)


def _of(here: Vector, v: Vector) -> dict[str, Tensor]:
    return {name: here[name] for name in v}
