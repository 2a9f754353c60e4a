"""The stage-2 condition along an arm's checkpoints, and the first order's cross terms by draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from geomix.analysis.delta2.ends import Ends
from geomix.gradients.objective import Objective, Weights
from geomix.gradients.vectors import Vector, combine, dot, norm
from geomix.measures.stage2_condition import Condition, Gradients, stage2_condition


@dataclass(frozen=True, slots=True)
class Tested:
    """The condition at one checkpoint.

    Attributes:
        checkpoint: `A`, `A+1`, …, `B`.
        name: the mixed-in set: `D_M`, `replay`, or `held-out`, the null.
        own: β₁, the weight of D_B.
        mixed: β₂.
        gradients: their products and norms.
        condition: the verdict.
    """

    checkpoint: str
    name: str
    own: float
    mixed: float
    gradients: Gradients
    condition: Condition


def condition_along(
    at: Weights,
    checkpoints: Iterable[tuple[str, Vector]],
    own: Objective,
    later: Objective,
    others: Mapping[str, tuple[Objective, float, float]],
    known: Mapping[str, tuple[Vector, Vector]] | None = None,
) -> Iterator[Tested]:
    """Test the condition at each checkpoint.

    Args:
        at: the arm's model.
        checkpoints: names and weights.
        own: loss of D_A.
        later: loss of D_B.
        others: loss of each mixed-in set by name, with β₁ and β₂.
        known: g_A and g_B of checkpoints where they are known.
    """
    for checkpoint, theta in checkpoints:
        at.move_to(theta)
        there = known.get(checkpoint) if known else None
        g_a, g_b = there or (own.gradient(), later.gradient())
        whole = dot(g_b, g_a), norm(g_a), norm(g_b)
        for name, (objective, beta, mixed) in others.items():
            g_m = objective.gradient()
            found = Gradients(whole[0], dot(g_m, g_a), whole[1], whole[2], norm(g_m))
            yield Tested(checkpoint, name, beta, mixed, found, stage2_condition(found, beta, mixed))


@dataclass(frozen=True, slots=True)
class CrossTerms:
    """Cross terms T = −v·g_M(θ_0), v = H_A g_B + H_B g_A at θ_A, by draw of D_M.

    These are the printed terms of η².

    Attributes:
        draws: T of each draw.
        shuffled: T of the same passages with their target tokens permuted over the draw: the part
            due to their common prompt and the frequencies of their tokens.
        offset: v·g_A(θ_0), which a mean loss adds to each T.
        weight: w_M, by which a mean loss multiplies the sum; nan if the arms train on no D_M.
    """

    draws: tuple[float, ...]
    shuffled: tuple[float, ...]
    offset: float
    weight: float


def cross_direction(here: Ends, at: Weights, own: Objective, later: Objective) -> Vector:
    """Return v = H_A g_B + H_B g_A at θ_A; the model stays there."""
    at.move_to(here.theta)
    found = [(1.0, own.hessian_product(here.later)), (1.0, later.hessian_product(here.own))]
    return combine(found)
