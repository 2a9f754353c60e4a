"""Critical sharpness and the tolerance step along the recorded segments of a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from geomix.analysis.forgetting.expansion import Mover
from geomix.gradients.objective import Objective
from geomix.gradients.vectors import Vector, dot
from geomix.measures.critical_sharpness import Crossing, critical_step, tolerance_step


@dataclass(frozen=True, slots=True)
class Sharpness:
    """Largest steps that a set's loss allows along a recorded segment d from its start.

    Attributes:
        checkpoint: the segment's start.
        steps: optimiser steps of the segment; `critical` and `tolerance` are multiples of d.
        name: the set.
        loss: at the start, nats.
        slope: g·d, nats.
        curvature: κ = dᵀHd / ‖d‖²; nan if d is 0.
        critical: η_c; λ_c = 2/η_c if it is defined.
        tolerance: η_ε.
    """

    checkpoint: str
    steps: int
    name: str
    loss: float
    slope: float
    curvature: float
    critical: Crossing
    tolerance: Crossing


def sharpness(
    mover: Mover, objective: Objective, start: Vector, d: Vector, where: tuple[str, int, str]
) -> Sharpness:
    """Measure both along a direction; a gradient, a product and about 12 forward passes.

    Args:
        mover: moves the objective's model.
        objective: of the whole set.
        start: θ.
        d: the segment's displacement.
        where: checkpoint, steps of the segment, and the set's name.
    """
    mover.move_to(start)
    loss, gradient = objective.loss_and_gradient()
    square, slope = dot(d, d), dot(gradient, d)
    curvature = dot(objective.hessian_product(d), d) / square if square else float("nan")
    change = _along(mover, objective, start, d, loss)
    critical, tolerance = critical_step(change, slope), tolerance_step(change)
    return Sharpness(*where, loss, slope, curvature, critical, tolerance)


def _along(
    mover: Mover, objective: Objective, start: Vector, d: Vector, loss: float
) -> Callable[[float], float]:
    """Return the change of the loss as a function of η; each is computed once."""
    known: dict[float, float] = {}

    def change(eta: float) -> float:
        if eta not in known:
            mover.move_to(start, d, eta)
            known[eta] = objective.loss() - loss
        return known[eta]

    return change
