"""Directions that are compared with the probe sets' gradients, and their order in a table."""

from __future__ import annotations

HELD_OUT = "held-out"
"""Unseen examples of D_A's template, never trained on: the null that decides."""

SHUFFLED = "shuffled"
"""D_M with the tokens to predict permuted over all its target positions: the null of D_M."""

UPDATE = "update"
"""Minus the displacement of a stage: a descent direction, as gradients of losses are compared with
it. At the end of a stage it is the next one's, at the end of the last one its own."""


def rank(name: str) -> tuple[int, str]:
    """Return a direction's sort key: D_A, D_B, …, then D_M, the nulls and the update."""
    last = {"D_M": 1, HELD_OUT: 2, SHUFFLED: 3, UPDATE: 4}
    return last.get(name, 0), name
