"""Projections of directions onto the plane of two of them (figure 3 of the paper, measured)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomix.measures.cosine import Floats, cosines

PARALLEL = 1e-6
"""Smallest angle, in radians, at which two directions span a well-defined plane."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Projections of s directions onto the plane of the first two.

    Attributes:
        dimensions: 2; 1 where the second is parallel to the first, zero or unknown, and only the
            line of the first is left; 0 where the first itself has no direction.
        coordinates: `(s, 2)` of each unit direction's projection: along the first one, and across
            it on the second one's side. nan where undefined; across is 0 on a line.
        shares: `(s,)` in [0, 1], length of the projection: the direction's share in the plane.
    """

    dimensions: int
    coordinates: Floats
    shares: Floats


def in_plane(inner: Floats) -> Plane:
    """Project directions onto the plane of the first two, by Gram–Schmidt.

    Args:
        inner: `(s, s)` inner products of s directions, at least two; nan where one is unknown. Only
            the first two rows and the diagonal are used.

    Raises:
        ValueError: these are not the inner products of any directions.
    """
    cosine = cosines(inner)
    first, second = cosine[0], cosine[1]
    along = first.copy()
    if np.isnan(first[0]):
        return _plane(0, along, np.full_like(along, np.nan))
    across = np.sqrt((1 - first[1]) * (1 + first[1]))  # sine of the angle between the two
    if not across >= PARALLEL:
        return _plane(1, along, np.where(np.isnan(along), np.nan, 0.0))
    return _plane(2, along, (second - first[1] * along) / across)


def _plane(dimensions: int, along: Floats, across: Floats) -> Plane:
    coordinates = np.stack([along, across], axis=1)
    shares: Floats = np.minimum(np.hypot(along, across), 1.0)  # only rounding exceeds 1
    return Plane(dimensions, coordinates, shares)
