"""Directions that are compared with the probe sets' gradients, and their order in a table."""

from __future__ import annotations

from geomix.config.names import mix_label, role_of

HELD_OUT = "held-out"
"""Unseen examples of D_A's template, never trained on: the null that decides."""

SHUFFLED = "shuffled"
"""D_M with its target tokens permuted over all target positions: the null of D_M."""

UPDATE = "update"
"""Minus the displacement of a stage: a descent direction, comparable to gradients of losses. At a
stage's end it is the next stage's displacement, at the last stage's end its own."""


def shuffled(mixed: str) -> str:
    """Return the null of a mixed-in set: `shuffled` for `D_M`, `shuffled-prose` for `D_M-prose`."""
    label = mix_label(mixed)
    return SHUFFLED + (f"-{label}" if label else "")


def is_shuffled(name: str) -> bool:
    """Return whether a direction is the null of a mixed-in set."""
    return name == SHUFFLED or name.startswith(f"{SHUFFLED}-")


def rank(name: str) -> tuple[int, str]:
    """Return a direction's sort key: D_A, D_B, …, then D_M, the nulls and the update."""
    if name == UPDATE:
        return 4, name
    if is_shuffled(name):
        return 3, name
    return {"mixed": 1, "held-out": 2}.get(role_of(name), 0), name
