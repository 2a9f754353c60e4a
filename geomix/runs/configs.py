"""Configurations stored with a run, and their comparison with others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from geomix.config.run import RunConfig, flat
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError

FIRST_LAYER = "first_layer"
"""Key of a stored configuration: the number of the first block, absent where it was 0."""


def stored_configs(run: RunDirectory) -> dict[str, RunConfig]:
    """Return the resolved configurations of a run's arms; "" if it has no arms.

    Raises:
        UserError: the file does not exist, or another version of geomix wrote it.
    """
    resolved = run.resolved()
    if FIRST_LAYER not in resolved and '"layers:' in json.dumps(resolved):
        raise UserError(
            f"{run.resolved_file}: trainable: layers:… counted from 0 when this run was made and "
            "counts from 1 now; begin a new run, or train it with the version of its env.json"
        )
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
    """Return a line for each key that decides the outcome and differs; none if they are the same.

    A stage's value inherited from the run's `train`, or common to all arms, is reported once.

    Args:
        run: the run of the known configurations, for the lines.
        known: its arms.
        given: the arms to compare.
    """
    lines: dict[str, str] = {}  # by text, so that differences common to all arms are reported once
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
                change = f"{key} was {was!r}, is {now!r}"
                lines.setdefault(change, f"{run.path}: {arm}{change}")
    return list(lines.values())


_MOST_KEYS, _LONGEST = 2, 16
"""Most differing keys, and characters of a value, that can name a configuration."""


def distinctions(configs: Sequence[RunConfig]) -> list[str]:
    """Return what distinguishes each configuration: `ratio 2` and `ratio 1`.

    Args:
        configs: of one arm in several runs; their seeds are not compared.

    Returns:
        A phrase each; none at all if too much differs, or nothing, or two share a phrase.
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
    """Return `stage 2 lr` for `stages.1.train.lr`: one key in two stages."""
    first, _, rest = key.partition(".")
    number = rest.partition(".")[0]
    return f"stage {int(number) + 1} {end}" if first == "stages" and number.isdigit() else key


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
