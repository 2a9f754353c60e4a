"""The rule by which a bound on an eigenvalue decides whether a matrix is positive semidefinite."""

from __future__ import annotations

from geomix.measures.lanczos import TOLERANCE
from geomix.measures.verdict import Verdict


def semidefinite(
    low: float, high: float, *, residual: float, rounding: float, full: bool
) -> Verdict:
    """Judge whether a symmetric matrix is positive semidefinite, to within 1/1000 of its largest.

    A Ritz value has an eigenvalue within its residual, so a value that is negative beyond residual
    and rounding is a proof. The absence of negative values proves nothing, unless all were
    computed.

    Args:
        low: smallest eigenvalue or Ritz value.
        high: largest one; values below a thousandth of it count as 0.
        residual: residual of the smallest, ‖Hy − λ̂y‖; 0 of a full decomposition.
        rounding: error of the products, in the same unit.
        full: whether all eigenvalues were computed.
    """
    zero = TOLERANCE * max(high, 0.0)
    if low + residual + rounding < -zero:
        return "refuted"
    return "supported" if full and low - rounding >= -zero else "undetermined"
