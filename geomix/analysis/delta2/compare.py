"""A reference and another arm: Δ's parts, the exact one-step terms, the linear model's reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geomix.analysis.delta2.ends import Base, Ends
from geomix.gradients.inner_products import inner_products
from geomix.gradients.objective import Objective, Weights
from geomix.gradients.vectors import Vector, combine, cosine, dot, minus, norm
from geomix.measures.delta import DeltaParts, ExactTerms, Floats, delta_parts, exact_terms
from geomix.measures.linear_model import (
    Coefficients,
    LinearTerms,
    Products,
    linear_terms,
    printed_coefficients,
)
from geomix.measures.reach import GRID, Reach, gradient_reach

_GA, _GB, _HAD, _HBD = 0, 1, 4, 5

UNKNOWN = 0.05
"""Share of ‖g_A(θ_0)‖ below which ‖g_M(θ_0)‖ is that of a base model that knows D_M already."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Both forms of the terms at a point within the linear model's reach.

    Attributes:
        t: share of δ at that point.
        exact: terms from gradients at θ_A + t δ.
        linear: terms from Hessian-vector products at θ_A.
    """

    t: float
    exact: ExactTerms
    linear: LinearTerms


@dataclass(frozen=True, slots=True)
class LinearModel:
    """The linear model s_X ≈ t H_X δ, and its reach.

    Attributes:
        products: products with the measured δ.
        reach_a: reach of the model of g_A along δ.
        reach_b: reach of the model of g_B.
        inside: the terms within both reaches; None if it fails from the first point on.
    """

    products: Products
    reach_a: Reach
    reach_b: Reach
    inside: Inside | None

    @property
    def reach(self) -> float:
        """The smaller reach, in shares of δ; 0 if one model fails at once, nan if undetermined."""
        both = self.reach_a.t, self.reach_b.t
        return float("nan") if any(np.isnan(both)) else min(both)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """The paper's assumptions on δ and D_M; they do not explain why an arm forgot less.

    Attributes:
        norm_m: ‖g_M(θ_0)‖.
        norm_a: ‖g_A(θ_0)‖.
        cos_m: cosine of δ with −g_M(θ_0).
        cos_difference: cosine of δ with −(g_M − g_A)(θ_0), the form for a mean loss.
        descends: cosine of the reference's θ_A − θ_0 with −g_A(θ_0).
        weight: w_M, the weight of D_M in the other arm's stage 1; 0 if it does not train on D_M.
        printed: coefficients of the printed form, δ = −η g_M(θ_0); None without D_M in training.
        weighted: those for δ = −η w_M (g_M − g_A)(θ_0).
    """

    norm_m: float
    norm_a: float
    cos_m: float
    cos_difference: float
    descends: float
    weight: float
    printed: Coefficients | None = None
    weighted: Coefficients | None = None

    @property
    def known(self) -> bool:
        """True if the base model knows D_M, so that −η g_M(θ_0) is a negligible step."""
        return self.norm_m < UNKNOWN * self.norm_a


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A reference and another arm of one seed. M parameter tensors.

    Attributes:
        parts: Δ, Δ₁, Δ₂, Δ₃ in nats.
        second: `(M,)` Δ₂ by parameter tensor, nats.
        inner: `(M, 6, 6)` inner products of g_A, g_B, g'_A, g'_B, H_A δ, H_B δ; `(M, 4, 4)`
            without the products.
        names: of the M tensors.
        length: ‖δ‖.
        curvature: δᵀH_Aδ/‖δ‖² and δᵀH_Bδ/‖δ‖² at the reference's θ_A; nan without products.
        linear: None without products.
        assumptions: None where neither arm has a D_M.
    """

    parts: DeltaParts
    second: Floats
    inner: Floats
    names: tuple[str, ...]
    length: float
    curvature: tuple[float, float]
    linear: LinearModel | None
    assumptions: Assumptions | None

    @property
    def four(self) -> Floats:
        """The `(M, 4, 4)` inner products of the gradients alone."""
        return self.inner[:, :4, :4]

    @property
    def exact(self) -> ExactTerms:
        """The exact Δ₂/η and its terms, of whole gradients."""
        return exact_terms(self.four.sum(axis=0))


def compare(
    here: Ends,
    other: Ends,
    at: Weights,
    own: Objective,
    later: Objective,
    base: Base | None = None,
    weight: float = 0.0,
) -> Comparison:
    """Compare another arm with a reference.

    Args:
        here: the reference.
        other: the other arm.
        at: the reference's model; its final weights are unspecified.
        own: loss of D_A under that model.
        later: loss of D_B.
        base: gradients at θ_0; None if there is no D_M.
        weight: w_M of the other arm's stage 1.
    """
    delta = minus(other.theta, here.theta)
    asked: dict[str, Vector] = {"δ": delta}
    if base is not None and weight:
        asked |= {"printed": base.mixed}
        asked |= {"weighted": combine([(weight, base.mixed), (-weight, base.own)])}
    at.move_to(here.theta)
    of_a, of_b = (_products(objective, asked) for objective in (own, later))
    terms = {name: _terms(here, of_a[name], of_b[name]) for name in asked}
    length = norm(delta)
    square = length**2 or float("nan")
    found = _gradients(here, other, [of_a["δ"], of_b["δ"]])
    return Comparison(
        *found,
        length,
        (dot(delta, of_a["δ"]) / square, dot(delta, of_b["δ"]) / square),
        _linear(here, delta, at, (own, of_a["δ"]), (later, of_b["δ"]), terms["δ"]),
        None if base is None else _assumptions(here, delta, base, weight, terms),
    )


def from_gradients(here: Ends, other: Ends, base: Base | None = None) -> Comparison:
    """Compare two trainings without second derivatives, such as two of one arm for the floor.

    Args:
        here: the reference.
        other: the other one.
        base: gradients at θ_0, for the cosines of δ.
    """
    delta = minus(other.theta, here.theta)
    nan = float("nan")
    assumed = None if base is None else _assumptions(here, delta, base, 0.0, {})
    return Comparison(*_gradients(here, other, []), norm(delta), (nan, nan), None, assumed)


def _gradients(
    here: Ends, other: Ends, products: list[Vector]
) -> tuple[DeltaParts, Floats, Floats, tuple[str, ...]]:
    names = tuple(here.own)
    vectors = [here.own, here.later, other.own, other.later, *products]
    parts = delta_parts(here.start, here.end, here.slope, other.start, other.end, other.slope)
    second = np.array([here.slopes[name] - other.slopes[name] for name in names])
    return parts, second, inner_products([[v[name] for name in names] for v in vectors]), names


def _products(objective: Objective, vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    with objective.kept() as products:
        return {name: products.hessian(v) for name, v in vectors.items()}


def _terms(here: Ends, of_a: Vector, of_b: Vector) -> Products:
    return Products(
        dot(here.later, here.own), dot(here.later, of_a), dot(here.own, of_b), dot(of_a, of_b)
    )


def _linear(
    here: Ends,
    delta: Vector,
    at: Weights,
    own: tuple[Objective, Vector],
    later: tuple[Objective, Vector],
    products: Products,
) -> LinearModel:
    reach_a = _reach(here, delta, at, here.own, *own)
    reach_b = _reach(here, delta, at, here.later, *later)
    found = LinearModel(products, reach_a, reach_b, None)
    t = found.reach
    if not t > 0:
        return found
    at.move_to(combine([(1.0, here.theta), (t, delta)]))
    moved = [own[0].gradient(), later[0].gradient()]
    vectors = [here.own, here.later, *moved]
    inner = inner_products([[v[name] for name in here.own] for v in vectors]).sum(axis=0)
    inside = Inside(t, exact_terms(inner), linear_terms(products, t))
    return LinearModel(products, reach_a, reach_b, inside)


def _reach(
    here: Ends, delta: Vector, at: Weights, start: Vector, objective: Objective, product: Vector
) -> Reach:
    """Measure the reach of the Hessian's prediction along δ; stop at the first failure."""
    errors: list[float] = []
    norms: list[float] = []
    for t in GRID:
        at.move_to(combine([(1.0, here.theta), (t, delta)]))
        changed = minus(objective.gradient(), start)
        norms.append(norm(changed))
        errors.append(norm(combine([(1.0, changed), (-t, product)])))
        if gradient_reach(errors, norms, GRID[: len(errors)]).fails == t:
            break
    return gradient_reach(errors, norms)


def _assumptions(
    here: Ends, delta: Vector, base: Base, weight: float, terms: Mapping[str, Products]
) -> Assumptions:
    printed, weighted = (
        printed_coefficients(terms[name]) if name in terms else None
        for name in ("printed", "weighted")
    )
    return Assumptions(
        norm_m=norm(base.mixed),
        norm_a=norm(base.own),
        cos_m=-cosine(delta, base.mixed),
        cos_difference=-cosine(delta, minus(base.mixed, base.own)),
        descends=base.descends(here),
        weight=weight,
        printed=printed,
        weighted=weighted,
    )
