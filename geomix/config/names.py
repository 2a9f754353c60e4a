"""Names of sets and checkpoints, derived from their stage's index; one alphabet for both."""

from __future__ import annotations

import re
from typing import Literal

from geomix.util.errors import UserError

Role = Literal["own", "mixed", "replayed", "held-out", "extra"]
"""Role of a set in a run: a stage's own examples; examples mixed into a stage; examples of earlier
stages, trained on again; unseen examples of the first stage's distribution; an entry of
`evaluate.sets`."""

MIXED = "D_M"
"""Name of the mixed-in examples; the stages' own sets are `D_A`, `D_B`, … in order."""

REPLAY = "replay"
"""Name of the examples of earlier stages that are trained on again."""

HELD_OUT = "held-out"
"""Name of the examples from the first stage's distribution that nobody trains on."""

LETTERS = "ABCDEFGHIJKLNOPQRSTUVWXYZ"
"""Letters of the stages; M is left out for the mixed-in set."""


def letter_of(stage: int) -> str:
    """Return the letter of a stage, by its index from 0.

    Raises:
        UserError: there are more stages than letters.
    """
    if stage >= len(LETTERS):
        raise UserError(f"stages: {stage + 1} or more; geomix names up to {len(LETTERS)}")
    return LETTERS[stage]


def set_name(stage: int) -> str:
    """Return `D_A` for the first stage, `D_B` for the second, … `D_N` after `D_L`."""
    return f"D_{letter_of(stage)}"


def stage_of_set(name: str) -> int | None:
    """Return the index, from 0, of the stage whose own set it is; None for any other set."""
    letter = name.removeprefix("D_")
    known = name.startswith("D_") and len(letter) == 1 and letter in LETTERS
    return LETTERS.index(letter) if known else None


def checkpoint_name(stages: int) -> str:
    """Return the name of the model between stages: `θ_0` before the first one ends, then `θ_A`, ….

    Args:
        stages: number of finished stages.
    """
    return "θ_0" if stages == 0 else f"θ_{letter_of(stages - 1)}"


_MIXED = re.compile(rf"{MIXED}([0-9]*)(?:-(.+))?")


def mixed_name(label: str = "", stage: int | None = None) -> str:
    """Return the name of a mixed-in set: `D_M`; `D_M-prose` for a named mix; `D_M2` for a stage.

    Args:
        label: the mix's name; empty for a stage's only mix without a name.
        stage: index from 0, if stages mix different examples under one name.
    """
    number = "" if stage is None else str(stage + 1)
    return MIXED + number + (f"-{label}" if label else "")


def mix_label(name: str) -> str:
    """Return a mix's name from its set's: `prose` for `D_M-prose`; empty if it has none."""
    found = _MIXED.fullmatch(name)
    return (found and found[2]) or ""


def role_of(name: str) -> Role:
    """Return a set's role by its name; none of `evaluate.sets` may have a name of another role.

    Args:
        name: a name by `set_name` or `mixed_name`, `replay`, `held-out`, or another.
    """
    if _MIXED.fullmatch(name):
        return "mixed"
    if re.fullmatch("D_[A-Z][0-9]*", name):
        return "own"
    if name == REPLAY:
        return "replayed"
    return "held-out" if name == HELD_OUT else "extra"


def order_of_set(name: str) -> tuple[int, str]:
    """Return a sort key: the stages' own sets, `evaluate.sets`, mixed-in sets, held-out."""
    return {"own": 0, "mixed": 2, "held-out": 3}.get(role_of(name), 1), name
