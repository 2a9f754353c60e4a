"""Δ₂/η by a linear model of the gradients, s_X ≈ t H_X x (pure maths).

Source: Chen et al., arXiv 2411.07175, appendix A.3. With x = δ = θ'_A − θ_A, as it was measured,
the terms are the paper's three, at θ_A + t δ. With x = −η g_M(θ_0), as it is printed, they are
coefficients of powers of η, which no training rate of a real run stands for: nothing here takes η.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products with Hessian-vector products at the reference's θ_A, float64.

    Attributes:
        gb_ga: g_B·g_A.
        gb_hax: g_B·H_A x.
        ga_hbx: g_A·H_B x.
        hax_hbx: H_A x·H_B x.
    """

    gb_ga: float
    gb_hax: float
    ga_hbx: float
    hax_hbx: float


@dataclass(frozen=True, slots=True)
class LinearTerms:
    """The linear model's Δ₂/η and its three terms.

    Attributes:
        total: their sum.
        gb_sa: t g_B·H_A δ, for g_B·s_A.
        ga_sb: t g_A·H_B δ, for g_A·s_B.
        sa_sb: t² H_A δ·H_B δ, for s_A·s_B.
    """

    total: float
    gb_sa: float
    ga_sb: float
    sa_sb: float


def linear_terms(products: Products, t: float = 1.0) -> LinearTerms:
    """Compute the terms at θ_A + t δ.

    Args:
        products: with x = δ.
        t: share of the segment from θ_A to θ'_A.
    """
    first, second = t * products.gb_hax, t * products.ga_hbx
    third = t * t * products.hax_hbx
    return LinearTerms(first + second + third, first, second, third)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Coefficients of the printed forms, by power of η.

    Attributes:
        eta: of η in one SGD step's forgetting, −g_A·g_B at θ_A.
        eta2_b: of η² in Δ₂, −g_B·H_A x, the first cross term.
        eta2_a: of η², −g_A·H_B x, the second one.
        eta3: of η³, H_B x·H_A x.
    """

    eta: float
    eta2_b: float
    eta2_a: float
    eta3: float

    @property
    def eta2(self) -> float:
        """Sum of both cross terms."""
        return self.eta2_b + self.eta2_a


def printed_coefficients(products: Products) -> Coefficients:
    """Return the coefficients of the paper's Δ₂ for δ = −η x.

    Args:
        products: with x = g_M(θ_0), as printed, or x = w_M (g_M − g_A)(θ_0), for a mean loss.
    """
    return Coefficients(-products.gb_ga, -products.gb_hax, -products.ga_hbx, products.hax_hbx)
