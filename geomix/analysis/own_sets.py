"""The set that an analysis is about, by `--set`: D_A unless another stage's own is named."""

from __future__ import annotations

from geomix.config.names import stage_of_set
from geomix.util.errors import UserError


def own_stage(name: str) -> int:
    """Return the index of the stage whose own set is named.

    Raises:
        UserError: no stage has such a set.
    """
    stage = stage_of_set(name)
    if stage is None:
        raise UserError(f"--set {name[:40]}: give an earlier stage's own set, such as D_A")
    return stage


def suffix_of_set(name: str) -> str:
    """Return what tells files about a set from those about D_A, such as `_D_B`."""
    return "" if name == "D_A" else f"_{name}"
