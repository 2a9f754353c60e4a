"""The configurations that a run was made with, and whether others are the same."""

from __future__ import annotations

import re
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

    What a stage has of the run's own `train`, or all arms alike, is told once.

    Args:
        run: whose configurations are known, for the lines.
        known: its arms.
        given: what is compared.
    """
    lines: dict[str, str] = {}  # by what is said, so that what all arms share is said once
    for name in dict.fromkeys([*known, *given]):
        before = flat(known[name]) if name in known else {}
        after = flat(given[name]) if name in given else {}
        arm = f"arm {name}, " if name else ""
        if not before or not after:
            who = "the run" if before else "the configuration"
            other = "the configuration" if before else "the run"
            what = f"arm {name}, {other} has not" if name else f"no arms, {other} has"
            lines[name] = f"{run.path}: {who} has {what}"
            continue
        keys = dict.fromkeys([*before, *after])
        changes = {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}
        for key, (was, now) in changes.items():
            shared = re.sub(r"^stages\.\d+\.(?=train\.)", "", key)
            if shared == key or changes.get(shared) != (was, now):
                said = f"{key} was {was!r}, is {now!r}"
                lines.setdefault(said, f"{run.path}: {arm}{said}")
    return list(lines.values())


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
