"""Changes that save disk space and leave the training unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from geomix.planning.disk import Disk, disk_of
from geomix.planning.estimate import Arm

_WORTH = 0.02
"""Smallest share of all bytes that a change must save to be named."""


def savings_of(arms: Mapping[str, Arm]) -> list[tuple[str, int]]:
    """Return changes that save space, with the peak disk space that remains.

    Args:
        arms: of an experiment, by name.
    """
    whole = _space(list(arms.values()))
    if whole is None:
        return []
    found = [(change, _space(others)) for change, others in _changes(list(arms.values()))]
    known = [(change, left) for change, left in found if left is not None]
    if len(arms) > 1:
        alone = [left for arm in arms.values() if (left := _space([arm])) is not None]
        known.append(("one arm alone (--arm NAME)", max(alone)))
    by_left = {left: change for change, left in reversed(known)}  # of equal ones the first
    return [(c, left) for c, left in known if left <= (1 - _WORTH) * whole and by_left[left] == c]


def _changes(arms: Sequence[Arm]) -> Iterator[tuple[str, list[Arm]]]:
    """Yield each change as a `--set` option, and the arms with it."""
    yield "--set checkpoint.keep=1", [_with(arm, "checkpoint", "keep", 1) for arm in arms]
    for key, value in (("gradients", False), ("sketches", None), ("weights", False)):
        text = "null" if value is None else "false"
        yield f"--set record.{key}={text}", [_with(arm, "record", key, value) for arm in arms]
    yield "--set record.activations=0 --set record.lens=false", [_without(arm) for arm in arms]
    yield "--set record=null", [_set(arm, "record", None) for arm in arms]


def _without(arm: Arm) -> Arm:
    """Return the arm without activations, and without the options that need them."""
    for key, value in (("activations", 0), ("lens", False), ("modules", ())):
        arm = _with(arm, "record", key, value)
    return arm


def _with(arm: Arm, part: str, key: str, value: Any) -> Arm:
    known = getattr(arm.config, part)
    return arm if known is None else _set(arm, part, known.model_copy(update={key: value}))


def _set(arm: Arm, part: str, value: Any) -> Arm:
    return replace(arm, config=arm.config.model_copy(update={part: value}))


def _space(arms: Sequence[Arm]) -> int | None:
    """Return the peak bytes while the arms train one after the other; None if unknown."""
    found = [disk_of(arm, index) for arm in arms for index in range(len(arm.plans))]
    kept = [_kept(disk) for disk in found]
    within = [disk.within for disk in found]
    if None in kept or None in within:
        return None
    return sum(one or 0 for one in kept) + max(one or 0 for one in within)


def _kept(disk: Disk) -> int | None:
    parts = [disk.final, disk.snapshots, disk.verdicts]
    return None if None in parts else sum(part or 0 for part in parts)
