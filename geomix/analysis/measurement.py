"""Measurement at one checkpoint of a run, from its record or its weights.

Shapes: p parameter tensors or slices of them, S probe sets, d directions.
"""

from __future__ import annotations

from dataclasses import dataclass

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.parameter_groups import Layout
from geomix.measures.cosine import Floats


@dataclass(frozen=True, slots=True)
class Secant:
    """Each set's gradient here and at the stage's start, along the displacement between.

    Attributes:
        here: `(p, S)` g(θ)·(θ − θ_start), nats.
        start: `(p, S)` g(θ_start)·(θ − θ_start), nats: the first-order change of the loss.
        turned: `(p, S)` |g(θ) − g(θ_start)|².
        moved: `(p,)` |θ − θ_start|².
    """

    here: Floats
    start: Floats
    turned: Floats
    moved: Floats


@dataclass(frozen=True, slots=True)
class Measurement:
    """Measurement at one checkpoint.

    Attributes:
        checkpoint: its stage, step and label.
        layout: of the parameters or their slices.
        sets: names of the S probe sets.
        directions: names of all d: the sets, then `shuffled` and `update` if there are any.
        inner: `(p, d, d)` inner products.
        secant: None at the stage's start, and if its initial weights are unknown.
    """

    checkpoint: NamedCheckpoint
    layout: Layout
    sets: tuple[str, ...]
    directions: tuple[str, ...]
    inner: Floats
    secant: Secant | None
