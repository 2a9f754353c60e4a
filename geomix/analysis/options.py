"""Options of an analysis: a frozen dataclass that defines its command-line flags."""

from __future__ import annotations

import dataclasses
from typing import Any

from geomix.measures.verdict import ENOUGH


def option(
    default: Any,
    text: str,
    *,
    flag: str = "",
    metavar: str = "",
    least: int | None = None,
    above: float | None = None,
    shown: bool = True,
) -> Any:
    """Create a field of an analysis's options.

    Args:
        default: its default value.
        text: one sentence for `--help`.
        flag: `--by`; by default the field's name.
        metavar: placeholder of the value in `--help`.
        least: the smallest whole number that it takes.
        above: the number that it must exceed.
        shown: whether `--help` shows the default.
    """
    metadata: dict[str, Any] = {"text": text, "flag": flag, "metavar": metavar, "least": least}
    metadata |= {"above": above, "shown": shown}
    return dataclasses.field(default=default, metadata=metadata)


def smallest(unit: str) -> Any:
    """Create the field `smallest: float | None`: smallest effect of interest (`verdict.Rule`)."""
    text = f"Smallest effect of interest ({unit}), declared before the runs; a verdict needs it."
    return option(None, text, metavar="EFFECT", above=0)


def planned() -> Any:
    """Create the field `planned: int`: paired seeds that a verdict needs, for `verdict.Rule`."""
    return option(ENOUGH, "Paired seeds that a verdict needs, declared before the runs.", least=2)


@dataclasses.dataclass(frozen=True, slots=True)
class NoOptions:
    """Empty options, for an analysis without any."""
