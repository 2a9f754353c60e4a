"""Critical sharpness and the tolerance step, from losses along a direction alone (pure maths).

Source: Kalra et al., arXiv 2601.16979: along a direction d, η_c is the smallest η > 0 with L(θ +
ηd) > L(θ), and λ_c = 2/η_c; on a quadratic λ_c = dᵀHd / (−g·d). It is *relative* if L is another
set's loss than the one that d descends. The tolerance step is geomix's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MOST = 2.0**10
"""Largest step that is tried, as a multiple of the direction."""

LEAST = 2.0**-20
"""Smallest step that is tried: a rise that persists there is below the loss's resolution."""

TOLERANCE = 0.1
"""Relative width of the bracket at which a search ends."""

EPSILON = 0.01
"""Rise in nats that a tolerance step allows."""

State = Literal["defined", "conflict", "none", "unresolved"]

_TEXTS = {
    "conflict": "undefined (conflict)",
    "none": f"none up to {MOST:g}",
    "unresolved": f"below {LEAST:.0e}",
}


@dataclass(frozen=True, slots=True)
class Crossing:
    """Step at which the loss along a direction first reaches a level.

    Attributes:
        step: η in units of the direction; 0 in a conflict, nan if there is none or it is not
            resolved.
        state: `defined`; `conflict`: the smallest step already raises the loss; `none` up to
            `MOST`; `unresolved`: above the level down to `LEAST`.
    """

    step: float
    state: State

    @property
    def sharpness(self) -> float:
        """Sharpness λ_c = 2/η_c; nan unless defined, so that no mean includes another state."""
        return 2 / self.step if self.state == "defined" else float("nan")

    @property
    def text(self) -> str:
        """Text of the step, or why there is none."""
        return f"{self.step:.3g}" if self.state == "defined" else _TEXTS[self.state]


def critical_step(
    change: Callable[[float], float], slope: float, tolerance: float = TOLERANCE
) -> Crossing:
    """Return η_c along a direction.

    The slope decides first: if it is not below 0, the smallest step raises the loss, η_c is 0 and
    the sharpness undefined.

    Args:
        change: L(θ + ηd) − L(θ) at an η, nats.
        slope: g·d, nats.
        tolerance: relative width of the bracket at which the search ends.
    """
    if not slope < 0:
        return Crossing(0.0, "conflict")
    return _search(lambda eta: not change(eta) <= 0, tolerance)


def tolerance_step(
    change: Callable[[float], float], epsilon: float = EPSILON, tolerance: float = TOLERANCE
) -> Crossing:
    """Return η_ε: the smallest η at which the loss has risen by ε.

    Args:
        change: as for `critical_step`.
        epsilon: ε, nats, above 0.
        tolerance: as for `critical_step`.
    """
    return _search(lambda eta: not change(eta) < epsilon, tolerance)


def _search(above: Callable[[float], bool], tolerance: float) -> Crossing:
    """Double or halve to a bracket, then bisect it on a logarithmic scale.

    A non-finite loss is above every level. A rise and fall between two tried steps is missed.
    """
    low, high = 1.0, 1.0
    if above(1.0):
        while above(low := low / 2):
            high = low
            if low <= LEAST:
                return Crossing(float("nan"), "unresolved")
    else:
        while not above(high := high * 2):
            low = high
            if high >= MOST:
                return Crossing(float("nan"), "none")
    while high / low > 1 + tolerance:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if above(middle) else (middle, high)
    return Crossing(math.sqrt(low * high), "defined")
