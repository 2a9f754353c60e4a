"""The configurations that a run was made with, and whether others are the same."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from geomix.config.run import RunConfig, flat
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError


def stored_configs(run: RunDirectory) -> dict[str, RunConfig]:
    """The configurations of a run's arms, as they were resolved; "" where it has no arms.

    Raises:
        UserError: the file is not there, or another version of geomix wrote it.
    """
    resolved = run.resolved()
    try:
        if not resolved.get("arms"):
            return {"": RunConfig.model_validate(resolved["config"])}
        found = resolved["configs"]
        return {name: RunConfig.model_validate(found[name]) for name in resolved["arms"]}
    except (ValidationError, LookupError, TypeError):
        raise UserError(
            f"{run.resolved_file}: not a configuration of this version of geomix; begin a new run"
        ) from None


def differences(
    run: RunDirectory, known: Mapping[str, RunConfig], given: Mapping[str, RunConfig]
) -> list[str]:
    """A line for each key that decides the outcome and differs; none where they are the same.

    Args:
        run: whose configurations are known, for the lines.
        known: its arms.
        given: what is compared.
    """
    lines = []
    for name in dict.fromkeys([*known, *given]):
        before = flat(known[name]) if name in known else {}
        after = flat(given[name]) if name in given else {}
        arm = f"arm {name}, " if name else ""
        if not before or not after:
            lines.append(f"{run.path}: arm {name} is in one of the two configurations only")
            continue
        lines += [
            f"{run.path}: {arm}{key} was {before.get(key)!r}, is {after.get(key)!r}"
            for key in dict.fromkeys([*before, *after])
            if before.get(key) != after.get(key)
        ]
    return lines
