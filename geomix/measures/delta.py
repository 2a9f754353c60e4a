"""Δ between two arms and its parts, from losses and inner products (pure maths).

Source: Chen et al., arXiv 2411.07175, appendix A, expanded exactly. Arm 0 is the reference, a prime
marks the other arm; θ_A ends stage 1, θ_B stage 2, and every loss is that of D_A:

    Δ = L(θ_B) − L(θ'_B) = Δ₁ + Δ₂ + Δ₃        positive: the other arm forgot less
    Δ₁ = L(θ_A) − L(θ'_A)
    Δ₂ = g_A(θ_A)·(θ_B − θ_A) − g_A(θ'_A)·(θ'_B − θ'_A)

In the one-step form θ_B = θ_A − η g_B(θ_A), so that Δ₂/η = g'_B·g'_A − g_B·g_A exactly. With
s_X = g'_X − g_X that is g_B·s_A + g_A·s_B + s_A·s_B.

Shapes: inner products are `(..., 4, 4)` float64 of g_A, g_B, g'_A, g'_B, in this order; leading
axes may be groups of parameters, over which all that is linear in inner products adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEGENERATE = 0.3
"""Share of the larger part below which a difference is degenerate: it shows only how far the
reference arm was from convergence."""

_A, _B, _A2, _B2 = range(4)


@dataclass(frozen=True, slots=True)
class DeltaParts:
    """The difference Δ and its parts, nats.

    Attributes:
        total: Δ.
        first: Δ₁, from the losses at the end of stage 1.
        second: Δ₂, of first order in the displacements of stage 2.
        third: Δ₃, the rest.
    """

    total: float
    first: float
    second: float
    third: float


def delta_parts(
    start: float, end: float, slope: float, other_start: float, other_end: float, other_slope: float
) -> DeltaParts:
    """Compute Δ = Δ₁ + Δ₂ + Δ₃ between a reference and another arm.

    Δ adds over a chain of arms, and so does each part.

    Args:
        start: L(θ_A) of D_A, nats.
        end: L(θ_B), nats.
        slope: g_A(θ_A)·(θ_B − θ_A), nats.
        other_start: L(θ'_A).
        other_end: L(θ'_B).
        other_slope: g_A(θ'_A)·(θ'_B − θ'_A).
    """
    total, first, second = end - other_end, start - other_start, slope - other_slope
    return DeltaParts(total, first, second, total - first - second)


@dataclass(frozen=True, slots=True)
class ExactTerms:
    """The exact Δ₂/η of one step, and its three terms; each `(...)`, squared nats.

    Attributes:
        total: g'_B·g'_A − g_B·g_A.
        gb_sa: g_B·s_A.
        ga_sb: g_A·s_B.
        sa_sb: s_A·s_B, the paper's third term.
    """

    total: Floats
    gb_sa: Floats
    ga_sb: Floats
    sa_sb: Floats


def exact_terms(inner: Floats) -> ExactTerms:
    """Compute Δ₂/η from four gradients, exactly and without a Hessian.

    Args:
        inner: `(..., 4, 4)`.
    """
    g = _checked(inner)
    gb_sa = g[..., _B, _A2] - g[..., _B, _A]
    ga_sb = g[..., _A, _B2] - g[..., _A, _B]
    sa_sb = g[..., _A2, _B2] - g[..., _A2, _B] - ga_sb
    return ExactTerms(g[..., _A2, _B2] - g[..., _A, _B], gb_sa, ga_sb, sa_sb)


@dataclass(frozen=True, slots=True)
class Drift:
    """Displacement of a set's gradient from one arm to the other; each `(...)`.

    Attributes:
        norm: ‖g_X‖ in the reference.
        other_norm: ‖g'_X‖.
        moved: ‖s_X‖.
        cosine: between g_X and g'_X.
    """

    norm: Floats
    other_norm: Floats
    moved: Floats
    cosine: Floats


def drift(inner: Floats) -> tuple[Drift, Drift]:
    """Compute the drift of D_A and that of D_B.

    Args:
        inner: `(..., 4, 4)`.
    """
    g = _checked(inner)

    def one(x: int, other: int) -> Drift:
        n, n2 = np.sqrt(g[..., x, x]), np.sqrt(g[..., other, other])
        squared = g[..., x, x] + g[..., other, other] - 2 * g[..., x, other]
        return Drift(n, n2, np.sqrt(np.maximum(squared, 0)), _ratio(g[..., x, other], n * n2))

    return one(_A, _A2), one(_B, _B2)


@dataclass(frozen=True, slots=True)
class NormAngle:
    """The split of g'_B·g'_A − g_B·g_A into the norms' part and the angle's; each `(...)`.

    The two add up exactly. The split depends on which changes first, so each part has the range of
    both orders; a part whose range contains 0 has no sign.

    Attributes:
        norm: part of the product of norms, mean of both orders.
        angle: part of the cosine.
        norm_range: `(..., 2)` smaller and larger of both orders.
        angle_range: `(..., 2)`.
        cosine: between g_A and g_B in the reference.
        other_cosine: in the other arm.
    """

    norm: Floats
    angle: Floats
    norm_range: Floats
    angle_range: Floats
    cosine: Floats
    other_cosine: Floats


def norm_angle_split(inner: Floats) -> NormAngle:
    """Split the change of g_B·g_A symmetrically into the norms' part and the angle's.

    Args:
        inner: `(..., 4, 4)`. Where a norm is zero its cosine is nan, and counts as 0 in the split.
    """
    g = _checked(inner)
    n, n2 = (np.sqrt(g[..., a, a]) * np.sqrt(g[..., b, b]) for a, b in ((_A, _B), (_A2, _B2)))
    c, c2 = _ratio(g[..., _A, _B], n), _ratio(g[..., _A2, _B2], n2)
    own, other = np.nan_to_num(c), np.nan_to_num(c2)
    norms = np.sort(np.stack([(n2 - n) * own, (n2 - n) * other], axis=-1), axis=-1)
    angles = np.sort(np.stack([(other - own) * n, (other - own) * n2], axis=-1), axis=-1)
    return NormAngle(norms.mean(axis=-1), angles.mean(axis=-1), norms, angles, c, c2)


@dataclass(frozen=True, slots=True)
class Degeneracy:
    """Test of whether the terms show more than the reference arm's distance from convergence.

    g_B·s_A = −g_B·g_A + g_B·g'_A and s_A·s_B = −g_A·s_B + g'_A·s_B. If the other arm has converged,
    g'_A ≈ 0 leaves the first part of each alone.

    Attributes:
        rho: ‖g'_A‖/‖s_A‖; 0 if the other arm has converged.
        gb_ga: g_B·g_A, the part of the reference.
        gb_ga2: g_B·g'_A, the part that the other arm adds.
        ga_sb: g_A·s_B.
        ga2_sb: g'_A·s_B.
        sign: whether the sign of Δ₂/η is degenerate.
        third: whether the sign of the third term is.
    """

    rho: float
    gb_ga: float
    gb_ga2: float
    ga_sb: float
    ga2_sb: float
    sign: bool
    third: bool


def degeneracy(inner: Floats, share: float = DEGENERATE) -> Degeneracy:
    """Test how much of the terms is due to the other arm's g'_A.

    Args:
        inner: `(4, 4)`, of whole gradients.
        share: a part smaller than this share of its partner is negligible.
    """
    g, (of_a, _) = _checked(inner), drift(inner)
    ga_sb, ga2_sb = g[_A, _B2] - g[_A, _B], g[_A2, _B2] - g[_A2, _B]
    gb_ga, gb_ga2 = g[_B, _A], g[_B, _A2]
    return Degeneracy(
        rho=float(_ratio(of_a.other_norm, of_a.moved)),
        gb_ga=float(gb_ga),
        gb_ga2=float(gb_ga2),
        ga_sb=float(ga_sb),
        ga2_sb=float(ga2_sb),
        sign=bool(abs(gb_ga2) < share * abs(gb_ga)),
        third=bool(abs(ga2_sb) < share * abs(ga_sb)),
    )


def _checked(inner: Floats) -> Floats:
    found = np.asarray(inner, dtype=np.float64)
    if found.shape[-2:] != (4, 4):
        raise ValueError(f"inner products {found.shape}: (..., 4, 4) of g_A, g_B, g'_A, g'_B")
    return found


def _ratio(one: Floats, other: Floats) -> Floats:
    """Return the quotient; nan if the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(other == 0, np.nan, one / other))
