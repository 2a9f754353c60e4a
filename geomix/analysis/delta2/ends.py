"""One arm at both ends of stage 2: losses, gradients at θ_A, and the displacement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from geomix.gradients.objective import Objective, Weights
from geomix.gradients.vectors import Vector, cosine, dots, minus, norm


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Measurements of an arm for its comparisons. Losses are of whole sets, in nats.

    Attributes:
        start: loss of D_A at θ_A.
        end: loss of D_A at θ_B.
        later_start: loss of D_B at θ_A.
        later_end: loss of D_B at θ_B.
        slopes: g_A(θ_A)·(θ_B − θ_A), nats, by parameter tensor.
        moved: ‖θ_B − θ_A‖.
        theta: θ_A.
        own: g_A(θ_A).
        later: g_B(θ_A).
    """

    start: float
    end: float
    later_start: float
    later_end: float
    slopes: Mapping[str, float]
    moved: float
    theta: Vector
    own: Vector
    later: Vector

    @property
    def forgetting(self) -> float:
        """Increase of the loss of D_A in stage 2, nats."""
        return self.end - self.start

    @property
    def slope(self) -> float:
        """The product g_A(θ_A)·(θ_B − θ_A), nats."""
        return sum(self.slopes.values())


def ends_of(at: Weights, own: Objective, later: Objective, start: Vector, end: Vector) -> Ends:
    """Measure an arm; its model ends at θ_B.

    Args:
        at: the arm's model.
        own: loss of D_A.
        later: loss of D_B.
        start: θ_A.
        end: θ_B.
    """
    at.move_to(start)
    loss, gradient = own.loss_and_gradient()
    later_loss, later_gradient = later.loss_and_gradient()
    at.move_to(end)
    displacement = minus(end, start)
    return Ends(
        start=loss,
        end=own.loss(),
        later_start=later_loss,
        later_end=later.loss(),
        slopes=dots(gradient, displacement),
        moved=norm(displacement),
        theta=start,
        own=gradient,
        later=later_gradient,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """Gradients at θ_0, which the paper calls the engine.

    Attributes:
        own: g_A(θ_0).
        mixed: g_M(θ_0).
        theta: θ_0.
    """

    own: Vector
    mixed: Vector
    theta: Vector

    def descends(self, ends: Ends) -> float:
        """Return the cosine between the displacement of stage 1 and −g_A(θ_0)."""
        return -cosine(minus(ends.theta, self.theta), self.own)


def base_of(at: Weights, own: Objective, mixed: Objective, theta: Vector) -> Base:
    """Measure gradients at θ_0; the model stays there.

    Args:
        at: a model.
        own: loss of D_A.
        mixed: loss of D_M.
        theta: θ_0.
    """
    at.move_to(theta)
    return Base(own.gradient(), mixed.gradient(), theta)
