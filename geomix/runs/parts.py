"""Environments in which the parts of a run were computed: `env.json`.

It holds one object while everything was computed in one environment, and later a list of such
objects, in order. `from` in each is the position at which it starts: the stage, from 0, and the
optimiser steps done in it; for a run with arms also the arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geomix.runs.directory import RunDirectory
from geomix.util.files import write_json
from geomix.util.reading import expect, read_objects

Environment = Mapping[str, Any]
"""An environment from `geomix.util.environment.describe_environment`; that of a part has `from`."""

FROM = "from"

_CONDITIONS = ("python", "platform", "commit", "device", "gpu", "cpu", "threads", "processes")
_NAMES = {"commit": "geomix's commit", "cpu": "CPU capability"}

_MOST = 4
"""Most names in a line."""


def parts_of(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the parts of a run, in order; none if no environment is known.

    Raises:
        UserError: the file is damaged.
    """
    file = run.environment_file
    parts = read_objects(file) if file.is_file() else []
    for part in parts:
        start = part.setdefault(FROM, {"stage": 0, "step": 0})  # written by older versions
        at = [start.get("stage"), start.get("step")] if isinstance(start, dict) else []
        known = isinstance(part.get("versions", {}), dict)
        expect(file, "from, a stage and a step", known and bool(at) and _are_numbers(at))
    return parts


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) for value in values)


def parts_before(run: RunDirectory, start: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts that start before a position, which a resume from there keeps."""
    arms = run.resolved().get("arms") or []
    return [part for part in parts_of(run) if _order(part[FROM], arms) < _order(start, arms)]


def _order(position: Mapping[str, Any], arms: Sequence[str]) -> tuple[int, int, int]:
    arm = position.get("arm")
    return arms.index(arm) if arm in arms else 0, position["stage"], position["step"]


def keep_part(run: RunDirectory, now: Environment, start: Mapping[str, Any]) -> None:
    """Record the environment in which a run is computed from a position on.

    Args:
        run: whose lock is held.
        now: the environment.
        start: `stage` and `step`, for a run with arms also `arm`.
    """
    parts = parts_before(run, start) if run.environment_file.is_file() else []
    if not parts or changes(parts[-1], now):
        parts.append({FROM: dict(start), **now})
    write_json(run.environment_file, parts[0] if len(parts) == 1 else parts)


def changes(before: Environment, now: Environment) -> list[str]:
    """Return each condition of bit-identity that differs: `torch was 2.0.9, is 2.11.0`.

    Conditions missing from either environment are left out.
    """
    known, found = _conditions(before), _conditions(now)
    return [
        f"{name} was {known[name]}, is {found[name]}"
        for name in known
        if name in found and known[name] != found[name]
    ]


def _conditions(environment: Environment) -> dict[str, Any]:
    own = {_NAMES.get(k, k): environment[k] for k in _CONDITIONS if k in environment}
    return {**environment.get("versions", {}), **own}


def warning(what: str, before: Environment, now: Environment) -> str | None:
    """Return a warning that results may not be bit-identical; None if nothing differs.

    Args:
        what: the present action, such as `RUN: goes on`.
        before: the environment of its start.
        now: the present one.
    """
    found = changes(before, now)
    if not found:
        return None
    return (
        f"{what} in another environment ({'; '.join(found)}): numbers can differ in their last "
        "digits from those of one environment"
    )


def mixture(members: Mapping[str, Sequence[Environment]]) -> str | None:
    """Return a line if results to be compared come from different environments; else None.

    Args:
        members: the parts of each, by name.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for name, parts in members.items():
        for part in parts:
            for condition, value in _conditions(part).items():
                names = seen.setdefault(condition, {}).setdefault(str(value), [])
                names += [] if name in names else [name]
    differences = [
        f"{condition} " + ", ".join(f"{value} ({_some(who)})" for value, who in values.items())
        for condition, values in seen.items()
        if len(values) > 1
    ]
    return f"computed in different environments: {'; '.join(differences)}" if differences else None


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")


def keep_recorded(file: Path, now: Environment, snapshots: Sequence[str]) -> None:
    """Record the environment in which snapshots are recorded after the training.

    Args:
        file: beside them, a list of environments each with its `snapshots`.
        now: the environment.
        snapshots: names of their files; an earlier entry of one is replaced.
    """
    parts = read_objects(file) if file.is_file() else []
    for part in parts:
        kept = [one for one in part.get("snapshots", ()) if one not in snapshots]
        part["snapshots"] = kept
    same = next((part for part in parts if {**part, "snapshots": None} == _noted(now)), None)
    if same is None:
        parts.append({"snapshots": [*snapshots], **now})
    else:
        same["snapshots"] += snapshots
    write_json(file, [part for part in parts if part["snapshots"]])


def _noted(now: Environment) -> dict[str, Any]:
    return {"snapshots": None, **now}
