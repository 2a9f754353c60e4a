"""The configurations that a run was made with, and whether others are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


_MOST_KEYS, _LONGEST = 2, 16
"""Of what tells configurations apart: more keys, or longer values, are no name for them."""


def told_apart(configs: Sequence[RunConfig]) -> list[str]:
    """What each configuration has where they differ: `ratio 2` and `ratio 1`.

    Args:
        configs: of one arm in several runs; their seeds are not compared.

    Returns:
        A phrase each; none at all where too much differs, or nothing, or two have one phrase.
    """
    found = [flat(config) for config in configs]
    keys = dict.fromkeys(key for one in found for key in one if key != "seed")
    unlike = [key for key in keys if len({repr(one.get(key)) for one in found}) > 1]
    ends = [key.rpartition(".")[2] for key in unlike]
    names = [
        end if ends.count(end) == 1 else _of_stage(key, end)
        for key, end in zip(unlike, ends, strict=True)
    ]
    values = [[_value(one.get(key)) for key in unlike] for one in found]
    phrases = [
        ", ".join(f"{name} {value}" for name, value in zip(names, mine, strict=True))
        for mine in values
    ]
    short = all(len(value) <= _LONGEST for mine in values for value in mine)
    clear = len(set(phrases)) == len(phrases) and len(set(names)) == len(names)
    return phrases if 0 < len(unlike) <= _MOST_KEYS and short and clear else []


def _of_stage(key: str, end: str) -> str:
    """`stage 2 lr` of `stages.1.train.lr`: one key in two stages."""
    first, _, rest = key.partition(".")
    number = rest.partition(".")[0]
    return f"stage {int(number) + 1} {end}" if first == "stages" and number.isdigit() else key


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
