"""Both ends of a symmetric matrix's spectrum, and its density, from products alone (pure maths).

One Lanczos recurrence with full reorthogonalisation serves both. It does not restart: after every
product it knows the best Ritz values with their residuals, so it can end there, converged or not.

Shapes: P the matrix's rows, m products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

Floats = NDArray[np.float64]
Product = Callable[[Floats], Floats]
"""`(P,)` float64 → the matrix times it, of the same shape."""

TOLERANCE = 1e-3
"""Residual at which a Ritz value has converged, and below which one counts as 0; a share of the
largest absolute value."""

_LOST = 0.7
"""Ratio of the lengths after and before orthogonalisation below which it is repeated (Daniel et
al., *Reorthogonalization and stable algorithms*, 1976)."""

_NOTHING = 1e-12
"""Share of the largest coefficient below which the recurrence has reached its end."""


@dataclass(frozen=True, slots=True)
class Krylov:
    """Lanczos's tridiagonal matrix after m products, and the basis behind it.

    Attributes:
        diagonal: `(m,)`.
        off: `(m,)`; the last one leads out of the basis, and is 0 where nothing is outside.
        basis: m orthonormal vectors `(P,)`, in the start's dtype.
    """

    diagonal: list[float]
    off: list[float]
    basis: list[NDArray[Any]]

    def ritz(self) -> tuple[Floats, Floats, Floats]:
        """Return Ritz values `(m,)`, ascending, vectors in the basis `(m, m)`, and residuals."""
        values, vectors = eigh_tridiagonal(np.array(self.diagonal), np.array(self.off[:-1]))
        return values, vectors, self.off[-1] * np.abs(vectors[-1])

    def vector(self, coefficients: Floats) -> Floats:
        """Return the vector `(P,)` with these coefficients in the basis, normalised."""
        found = np.zeros(self.basis[0].shape)
        for coefficient, column in zip(coefficients, self.basis, strict=True):
            found += coefficient * column
        return found / float(np.linalg.norm(found))


def lanczos(product: Product, start: NDArray[Any], enough: Callable[[Krylov], bool]) -> Krylov:
    """Run the recurrence until it is enough, or until nothing of the matrix is outside the basis.

    Args:
        product: the product with a symmetric matrix.
        start: `(P,)`, not 0; the basis is kept in its dtype, sums are float64.
        enough: called after each product.
    """
    basis: list[NDArray[Any]] = [start / np.linalg.norm(start.astype(np.float64))]
    found = Krylov([], [], [])
    while True:
        last = basis[-1].astype(np.float64)
        found.basis.append(basis[-1])
        image = product(last)
        found.diagonal.append(float(last @ image))
        rest = image - found.diagonal[-1] * last
        if found.off:
            rest -= found.off[-1] * basis[-2]
        rest = _orthogonal(rest, basis)
        length = float(np.linalg.norm(rest))
        largest = max(map(abs, [*found.diagonal, *found.off]))
        ends = length <= _NOTHING * largest or len(basis) == len(start)
        found.off.append(0.0 if ends else length)
        if ends or enough(found):
            return found
        basis.append((rest / length).astype(start.dtype))


def _orthogonal(vector: Floats, basis: Sequence[NDArray[Any]]) -> Floats:
    for _ in range(2):
        before = float(np.linalg.norm(vector))
        for column in basis:
            vector -= float(column.astype(np.float64) @ vector) * column
        if np.linalg.norm(vector) > _LOST * before:
            break
    return vector


@dataclass(frozen=True, slots=True)
class End:
    """One end of a spectrum.

    Attributes:
        values: the outermost Ritz values, the extreme one first.
        residuals: each one's distance to the nearest eigenvalue at most, by the recurrence.
        vector: `(P,)`, the unit vector y of the extreme one.
        residual: ‖Hy − λ̂y‖ of the extreme one, from a product of its own.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    vector: Floats
    residual: float

    @property
    def value(self) -> float:
        """The extreme Ritz value λ̂ = yᵀHy; the spectrum reaches at least as far."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class Extremes:
    """Both ends of a spectrum.

    Attributes:
        bottom: the smallest values.
        top: the largest ones. products: number of products, including those for the residuals.
        converged: whether both extreme values have residuals within the tolerance.
        full: whether they are the eigenvalues themselves, of a full decomposition.
    """

    bottom: End
    top: End
    products: int
    converged: bool
    full: bool

    @property
    def scale(self) -> float:
        """The largest absolute value."""
        return max(abs(self.bottom.value), abs(self.top.value))


def extremes(
    product: Product,
    start: NDArray[Any],
    *,
    count: int = 3,
    tolerance: float = TOLERANCE,
    most: int = 40,
) -> Extremes:
    """Compute both ends of a symmetric matrix's spectrum.

    A matrix with no more rows than products are allowed is decomposed in full.

    Args:
        product: the product with the matrix.
        start: `(P,)`; the same start gives the same numbers.
        count: number of values at each end.
        tolerance: residual at which it stops, as a share of the largest absolute value; it applies
            to all `count` values at both ends.
        most: most products, of which two are for the residuals.

    Raises:
        ValueError: fewer than 3 products.
    """
    if most <= 2:  # noqa: PLR2004
        raise ValueError(f"two ends with their residuals take at least 3 products, not {most}")
    if len(start) <= most:
        return _decomposed(product, len(start), count)

    def enough(krylov: Krylov) -> bool:
        values, _, bounds = krylov.ritz()
        outer = np.r_[bounds[:count], bounds[-count:]]
        small = bool((outer <= tolerance * np.abs(values).max()).all())
        return len(values) == most - 2 or (len(values) >= 2 * count and small)

    krylov = lanczos(product, start, enough)
    values, vectors, bounds = krylov.ritz()
    ends = []
    for order in (range(min(count, len(values))), range(-1, -1 - min(count, len(values)), -1)):
        index = list(order)
        y = krylov.vector(vectors[:, index[0]])
        image = product(y)
        quotient = float(y @ image)
        found = (quotient, *(float(values[i]) for i in index[1:]))
        residuals = tuple(float(bounds[i]) for i in index)
        ends.append(End(found, residuals, y, float(np.linalg.norm(image - quotient * y))))
    bottom, top = ends
    largest = max(abs(bottom.value), abs(top.value))
    converged = max(bottom.residual, top.residual) <= tolerance * largest
    return Extremes(bottom, top, len(values) + 2, converged, full=False)


def _decomposed(product: Product, size: int, count: int) -> Extremes:
    dense = np.stack([product(row) for row in np.eye(size)])
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    none = (0.0,) * min(count, size)
    low, high = tuple(values[:count].tolist()), tuple(values[::-1][:count].tolist())
    bottom = End(low, none, vectors[:, 0], 0.0)
    return Extremes(bottom, End(high, none, vectors[:, -1], 0.0), size, converged=True, full=True)


def random_start(size: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a vector `(P,)` of random signs, the same for the same size and seed."""
    signs = np.random.default_rng([seed, size]).integers(0, 2, size, dtype=np.int8)
    return 2 * signs.astype(np.float32) - 1


@dataclass(frozen=True, slots=True)
class Quadrature:
    """A spectral density as the nodes and weights of several starts.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad, *Fast estimation of tr(f(A))*, 2017).

    Attributes:
        nodes: for each start `(m,)`.
        weights: for each start `(m,)`; they sum to 1.
        size: P. products: number of products.
    """

    nodes: list[Floats]
    weights: list[Floats]
    size: int
    products: int

    def moments(self, power: int) -> Floats:
        """Return `vᵀHᵏv` of each start's unit vector: unbiased for tr Hᵏ / P."""
        pairs = zip(self.nodes, self.weights, strict=True)
        return np.array([float(w @ x**power) for x, w in pairs])

    def share(self, low: float, high: float) -> Floats:
        """Return for each start the share of eigenvalues from `low` to `high`, `high` excluded."""
        pairs = zip(self.nodes, self.weights, strict=True)
        return np.array([float(w[(x >= low) & (x < high)].sum()) for x, w in pairs])


def quadrature(
    product: Product, size: int, *, starts: int = 10, steps: int = 30, seed: int = 0
) -> Quadrature:
    """Estimate the spectral density of a symmetric matrix.

    Args:
        product: the product with the matrix.
        size: P.
        starts: number of random vectors; an interval over fewer than 10 is unreliable.
        steps: products for each.
        seed: seed of the starts.
    """
    nodes, weights, products = [], [], 0
    for index in range(starts):
        start = random_start(size, seed + 1 + index)
        krylov = lanczos(product, start, lambda found: len(found.diagonal) == steps)
        values, vectors, _ = krylov.ritz()
        nodes.append(values)
        weights.append(vectors[0] ** 2)
        products += len(values)
    return Quadrature(nodes, weights, size, products)
