"""Loss change along a path as norm × cosine × length, and comparison of two paths (pure maths).

On a straight segment with displacement d the loss changes by ḡ·d = ‖ḡ‖ · cos · ‖d‖, where ḡ is the
mean gradient by Simpson's rule, (g(start) + 4 g(middle) + g(end)) / 6. Exact where the loss is a
polynomial of degree 4 along the segment. Shapes: K segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from geomix.measures.shapley import shapley_of_product

Floats = NDArray[np.float64]

FACTORS = ("norm", "cosine", "length")
"""Factors in the order of every last axis here."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Factors of the change on each segment; any leading axes, such as `(K,)` or `(K, groups)`.

    Attributes:
        norm: ‖ḡ‖, nats per unit of the weights.
        cosine: of ḡ with the displacement; 0 where either is zero.
        length: ‖d‖.
    """

    norm: Floats
    cosine: Floats
    length: Floats

    @property
    def integral(self) -> Floats:
        """Change itself, nats."""
        return self.norm * self.cosine * self.length

    @property
    def stacked(self) -> Floats:
        """Factors stacked as `(..., 3)`, in the order of `FACTORS`."""
        return np.stack([self.norm, self.cosine, self.length], axis=-1)


def factors_of(inner: Floats, gradients: Floats, displacements: Floats) -> Factors:
    """Compute factors from inner products.

    Args:
        inner: `(...)` ḡ·d, nats.
        gradients: `(...)` ‖ḡ‖².
        displacements: `(...)` ‖d‖².
    """
    norm, length = np.sqrt(gradients), np.sqrt(displacements)
    size = norm * length
    cosine = np.divide(inner, size, out=np.zeros_like(size), where=size > 0)
    return Factors(norm, cosine, length)


def merged(factors: Factors, bounds: Sequence[int]) -> Factors:
    """Put successive segments together: changes and lengths add up, norms are weighed by length.

    The product stays exact: the cosine is that of the sum of the changes with the other two.

    Args:
        factors: of K segments, `(K, ...)`.
        bounds: points from 0 to K at which the parts begin and end, ascending.
    """
    starts = list(bounds[:-1])
    inner = np.add.reduceat(factors.integral, starts, axis=0)
    length = np.add.reduceat(factors.length, starts, axis=0)
    weighed = np.add.reduceat(factors.norm * factors.length, starts, axis=0)
    norm = np.divide(weighed, length, out=np.zeros_like(weighed), where=length > 0)
    cosine = np.divide(inner, weighed, out=np.zeros_like(inner), where=weighed > 0)
    return Factors(norm, cosine, length)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Difference between the changes of two paths, segment by segment: reference against arm.

    Attributes:
        logs: `(K, 3)` ln(reference / arm) of each factor; nan if the form is Shapley's. They sum to
            ln of the ratio of the changes, exactly.
        shapley: `(K, 3)` contribution of each factor to reference − arm, nats, for all segments;
            over segments and factors they sum to the difference of the two totals.
        ratios: `(K,)` whether a segment has a ratio: both changes above 0 and above their errors.
    """

    logs: Floats
    shapley: Floats
    ratios: NDArray[np.bool_]

    @property
    def parts(self) -> Floats:
        """Contribution `(3,)` of each factor to the difference of the totals, nats, by Shapley."""
        total: Floats = self.shapley.sum(axis=0)
        return total


def compare(
    reference: Factors, arm: Factors, reference_errors: Floats, arm_errors: Floats
) -> Comparison:
    """Compare two paths whose segments are paired.

    Args:
        reference: factors of K segments, `(K,)` each.
        arm: the other path's.
        reference_errors: `(K,)` quadrature error of each segment, nats, at least 0.
        arm_errors: the other path's.

    Raises:
        ValueError: the paths have unlike numbers of segments.
    """
    one, two = reference.stacked, arm.stacked
    if one.shape != two.shape:
        raise ValueError(f"{len(one)} and {len(two)} segments cannot be paired")
    changes = (reference.integral, arm.integral)
    ratios = (changes[0] > np.maximum(reference_errors, 0)) & (
        changes[1] > np.maximum(arm_errors, 0)
    )
    logs = np.full(one.shape, np.nan)
    logs[ratios] = np.log(one[ratios] / two[ratios])
    return Comparison(logs, shapley_of_product(two, one), ratios)


def signs_agree(fine: Floats, coarse: Floats) -> NDArray[np.bool_]:
    """Return whether a part keeps its sign with half the segments; False if one is 0.

    Args:
        fine: `(3,)` parts for K segments.
        coarse: `(3,)` the same for K/2.
    """
    kept: NDArray[np.bool_] = fine * coarse > 0
    return kept


def paired_points(
    shares: Sequence[Sequence[Fraction]], most: int
) -> tuple[list[list[int]], Fraction]:
    """Pair the points of several paths by their share of the stage's steps.

    The path with the fewest points leads; each other path contributes its nearest point. Coinciding
    points are used once. The first and last point of all paths always pair.

    Args:
        shares: of each path its points, ascending from 0 to its last.
        most: most segments, at least 1; additional points are thinned evenly.

    Returns:
        Indices of each path's points, all of one length, and the largest distance of two that are
        paired, as a share of the stage: 0 if they match exactly.

    Raises:
        ValueError: a path has no segment.
    """
    if any(len(path) < 2 for path in shares):  # noqa: PLR2004
        raise ValueError("a path needs at least two points")
    leader = min(shares, key=len)
    count = min(most, len(leader) - 1)
    picked = [round(i * (len(leader) - 1) / count) for i in range(count + 1)]
    rows: list[tuple[int, ...]] = []
    for index in picked:
        row = tuple(_nearest(path, leader[index]) for path in shares)
        if not rows or all(new > old for new, old in zip(row, rows[-1], strict=True)):
            rows.append(row)
    last = tuple(len(path) - 1 for path in shares)
    while rows and not all(new > old for new, old in zip(last, rows[-1], strict=True)):
        rows.pop()
    rows.append(last)
    if len(rows) == 1:
        rows.insert(0, tuple(0 for _ in shares))
    apart = Fraction(0)
    for row in rows:
        here = [path[index] for path, index in zip(shares, row, strict=True)]
        apart = max(apart, max(here) - min(here))
    return [list(column) for column in zip(*rows, strict=True)], apart


def _nearest(path: Sequence[Fraction], share: Fraction) -> int:
    return min(range(len(path)), key=lambda index: abs(path[index] - share))
