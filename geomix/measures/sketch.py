"""Random projections of gradients that keep inner products: unbiased, with a known variance.

A matrix G is sketched from both sides, S = R_o G R_i^T, a vector from one. The entries of R are
independent signs, scaled so that <S(A), S(B)> has the mean <A, B>.

Shapes: K entries of a sketch, (O, I) a parameter as a matrix, k_o × k_i = K.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Projection:
    """Projection that sketches the gradients of one parameter.

    Attributes:
        rows: `(k_o, O)` float32; `(K, O)` for a vector.
        columns: `(k_i, I)` float32; None for a vector.
    """

    rows: Tensor
    columns: Tensor | None

    def to(self, device: torch.device) -> Projection:
        """Return the same projection on another device."""
        columns = None if self.columns is None else self.columns.to(device)
        return Projection(self.rows.to(device), columns)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return a parameter's shape as a matrix `(O, I)`: all dimensions but the last are its rows."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def projection(seed: int, name: str, shape: Sequence[int], entries: int) -> Projection:
    """Return a parameter's projection, which depends on the arguments alone, on every machine.

    Args:
        seed: of the record.
        name: of the parameter; each has its own projection.
        shape: of the parameter; with fewer than two dimensions it is a vector.
        entries: K, a perfect square.

    Raises:
        ValueError: `entries` is not a square.
    """
    side = math.isqrt(max(entries, 0))
    if not side or side * side != entries:
        raise ValueError(f"a sketch of {entries} entries is not square; take 16, 64, 256 …")
    of = f"{seed}/{name}/{'x'.join(map(str, shape))}"
    if len(shape) < 2:  # noqa: PLR2004
        return Projection(signs(f"{of}/rows", entries, math.prod(shape)), None)
    rows, columns = matrix_shape(shape)
    return Projection(signs(f"{of}/rows", side, rows), signs(f"{of}/columns", side, columns))


def signs(label: str, k: int, n: int) -> Tensor:
    """Return independent signs over √k, `(k, n)` float32.

    The signs are the bits of SHAKE-256 of the label, the lowest of each byte first: a library's
    random numbers may change from version to version.
    """
    drawn = hashlib.shake_256(label.encode()).digest(-(-k * n // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=k * n, bitorder="little")
    return torch.from_numpy((2.0 * bits.reshape(k, n) - 1.0) / math.sqrt(k)).float()


def inner_product_variance(a: Floats, b: Floats, rows: int, columns: int | None = None) -> float:
    """Return the variance of <S(A), S(B)> over the signs, for given A and B.

    One-sided, K rows r of independent signs, sketches of vectors a and b: the estimate is the mean
    of K independent (r·a)(r·b), so the variance is V/K with (fourth moments of signs, E r⁴ = 1)

        V = |a|²|b|² + (a·b)² − 2 Σ_j a_j² b_j².

    Two-sided, it is the mean over p ≤ k_o, q ≤ k_i of X_pq = (u_pᵀ A v_q)(u_pᵀ B v_q), where u_p
    and v_q are independent vectors of signs. X_pq and X_p'q' are independent unless p = p' or
    q = q', so that

        variance = (V_uv + (k_i − 1) V_u + (k_o − 1) V_v) / (k_o k_i).

    V_u = Var uᵀMu with M = ABᵀ (averaged over v), V_v = Var vᵀNv with N = AᵀB, and Var uᵀMu = |M|²
    + tr M² − 2 Σ_i M_ii². V_uv = E X² − <A, B>², where E X² averages over v, then over u, by E
    (r·a)²(r·b)² = |a|²|b|² + 2 (a·b)² − 2 Σ_j a_j² b_j²:

        E X² = tr P tr Q + 2 tr PQ − 2 Σ_i P_ii Q_ii                        (P = AAᵀ, Q = BBᵀ)
             + 2 (<A, B>² + Var uᵀMu)
             − 2 Σ_j ( |A_j|²|B_j|² + 2 (A_j·B_j)² − 2 Σ_i A_ij² B_ij² )    (columns j).

    Args:
        a: `(O, I)` float64, or a vector `(O,)` where `columns` is None.
        b: the same shape.
        rows: k_o; K of a vector.
        columns: k_i.

    Returns:
        The variance, at least 0 up to rounding.
    """
    if columns is None:
        once = np.vdot(a, a) * np.vdot(b, b) + np.vdot(a, b) ** 2 - 2 * np.vdot(a * a, b * b)
        return float(once / rows)
    m, n, p, q = a @ b.T, a.T @ b, a @ a.T, b @ b.T
    inner = np.trace(m)
    over_u, over_v = _quadratic_variance(m), _quadratic_variance(n)
    lengths = (
        np.trace(p) * np.trace(q) + 2 * np.vdot(p, q) - 2 * np.vdot(p.diagonal(), q.diagonal())
    )
    square = a * a
    by_column = (
        np.vdot(square.sum(0), (b * b).sum(0))
        + 2 * np.vdot(n.diagonal(), n.diagonal())
        - 2 * np.vdot(square, b * b)
    )
    once = lengths + 2 * (inner**2 + over_u) - 2 * by_column - inner**2
    total = once + (columns - 1) * over_u + (rows - 1) * over_v
    return float(total / (rows * columns))


def _quadratic_variance(m: Floats) -> float:
    """Return the variance of uᵀMu over vectors u of signs."""
    return float(np.vdot(m, m) + np.vdot(m, m.T) - 2 * np.vdot(m.diagonal(), m.diagonal()))
