"""Names of sets and checkpoints, each by the place of its stage; one alphabet for both."""

from __future__ import annotations

from geomix.util.errors import UserError

MIXED = "D_M"
"""Name of the mixed-in examples; a stage's own are `D_A`, `D_B`, … by its place."""

REPLAY = "replay"
"""Name of the examples of earlier stages that are trained on again."""

HELD_OUT = "held-out"
"""Name of the examples of the first stage's distribution that nobody trains on."""

LETTERS = "ABCDEFGHIJKLNOPQRSTUVWXYZ"
"""A letter for each stage: M is that of the mixed-in set."""


def letter_of(stage: int) -> str:
    """The letter of a stage, by its index from 0.

    Raises:
        UserError: there are more stages than letters.
    """
    if stage >= len(LETTERS):
        raise UserError(f"stages: {stage + 1} or more; geomix names up to {len(LETTERS)}")
    return LETTERS[stage]


def set_name(stage: int) -> str:
    """`D_A` for the first stage, `D_B` for the second, … `D_N` after `D_L`."""
    return f"D_{letter_of(stage)}"


def checkpoint_name(stages: int) -> str:
    """The model between two stages: `θ_0` before the first one ends, then `θ_A`, `θ_B` and so on.

    Args:
        stages: how many have ended.
    """
    return "θ_0" if stages == 0 else f"θ_{letter_of(stages - 1)}"


def place_of_set(name: str) -> tuple[int, str]:
    """Sort key: the stages' own sets, those of `evaluate.sets`, what was mixed in, held-out."""
    if name == HELD_OUT:
        return (3, name)
    return (2 if name.startswith(MIXED) else 0 if name.startswith("D_") else 1, name)
