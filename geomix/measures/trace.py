"""The trace of a symmetric matrix from products (pure maths)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomix.measures.intervals import t_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """An estimate of a trace.

    Attributes:
        estimate: unbiased.
        half_width: of Student's 95 % interval over the starts.
        starts: random vectors behind the interval. products: number of products.
    """

    estimate: float
    half_width: float
    starts: int
    products: int


def hutch_plus_plus(
    product: Callable[[Floats], Floats],
    size: int,
    *,
    starts: int = 10,
    sketched: int = 10,
    seed: int = 0,
) -> Trace:
    """Estimate a trace by Hutch++ (Meyer, Musco, Musco and Woodruff, 2021).

    The trace within a sketched range is exact. The rest is estimated by Hutchinson's method from
    starts of its own, so that the interval over them holds for the sketch at hand.

    Args:
        product: the product with the symmetric matrix, `(P,)` to `(P,)`.
        size: P.
        starts: number of random vectors for the rest, at least 2.
        sketched: number of random vectors of the range; each costs two products.
        seed: seed of all vectors.
    """
    rng = np.random.default_rng([seed, size, 0x545243])

    def signs() -> Floats:
        return np.asarray(2 * rng.integers(0, 2, size) - 1, dtype=np.float64)

    columns = [product(signs()) for _ in range(min(sketched, size))]
    basis = np.linalg.qr(np.stack(columns, axis=1))[0] if columns else np.zeros((size, 0))
    inside = float(sum(column @ product(column) for column in basis.T))
    samples = []
    for _ in range(starts):
        start = signs()
        outside = start - basis @ (basis.T @ start)
        samples.append(float(outside @ product(outside)))
    mean, half = t_interval(samples)
    return Trace(inside + mean, half, starts, 2 * len(columns) + starts)
