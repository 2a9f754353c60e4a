"""Condition for mixing into stage 2 to lower forgetting to first order (pure maths).

Source: Chen et al., arXiv 2411.07175, appendix A.2 and A.3. With ∇L(D_B ∪ D_M) = β₁ g_B + β₂ g_M
one step changes the loss of D_A less than a step on D_B alone iff

    β₂ g_M·g_A > (1 − β₁) g_B·g_A        (the paper prints β₁ and β₂ the other way round)

Replay is the same with the replayed facts' gradient in place of g_M. Weights that sum to one leave
g_M·g_A > g_B·g_A of both forms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALL = 0.3
"""Share of ‖g_B‖ below which ‖g_M‖ can satisfy the condition by its size alone."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """Products and norms of three gradients at one θ.

    Attributes:
        gb_ga: g_B·g_A.
        gm_ga: g_M·g_A, or that of the set in D_M's place.
        norm_a: ‖g_A‖.
        norm_b: ‖g_B‖.
        norm_m: ‖g_M‖.
    """

    gb_ga: float
    gm_ga: float
    norm_a: float
    norm_b: float
    norm_m: float


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition at one θ.

    Attributes:
        margin: β₂ g_M·g_A − (1 − β₁) g_B·g_A; the condition holds above 0.
        printed_margin: the same with β₁ and β₂ swapped.
        cos_b: between g_B and g_A; nan if one is zero.
        cos_m: between g_M and g_A.
        by_size: whether it holds although g_M points less along g_A than g_B does, because g_M is
            small: no evidence for the mechanism.
    """

    margin: float
    printed_margin: float
    cos_b: float
    cos_m: float
    by_size: bool

    @property
    def holds(self) -> bool:
        """True if mixing in lowers forgetting to first order."""
        return self.margin > 0

    @property
    def printed_holds(self) -> bool:
        """True if the condition holds as printed."""
        return self.printed_margin > 0

    @property
    def state(self) -> str:
        """State of the condition: `true`, `by size` or `false`."""
        return ("by size" if self.by_size else "true") if self.holds else "false"


def stage2_condition(g: Gradients, own: float = 0.5, mixed: float = 0.5) -> Condition:
    """Judge the condition.

    Args:
        g: gradients of D_A, D_B and the mixed-in set.
        own: β₁, the weight of D_B in the mixed loss.
        mixed: β₂, that of D_M. Their size matters only if the two do not sum to one.
    """
    cos_b, cos_m = (
        _cosine(product, g.norm_a * norm)
        for product, norm in ((g.gb_ga, g.norm_b), (g.gm_ga, g.norm_m))
    )
    margin = mixed * g.gm_ga - (1 - own) * g.gb_ga
    printed = own * g.gm_ga - (1 - mixed) * g.gb_ga
    small = g.norm_m < SMALL * g.norm_b
    return Condition(margin, printed, cos_b, cos_m, margin > 0 and small and not cos_m >= cos_b)


def _cosine(product: float, norms: float) -> float:
    return product / norms if norms else math.nan
