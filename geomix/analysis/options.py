"""Options of an analysis: a frozen dataclass, from which its command-line flags follow."""

from __future__ import annotations

import dataclasses
from typing import Any


def option(
    default: Any,
    text: str,
    *,
    flag: str = "",
    metavar: str = "",
    least: int | None = None,
    shown: bool = True,
) -> Any:
    """A field of an analysis's options.

    Args:
        default: its value where it is not given.
        text: one sentence for `--help`.
        flag: `--by`; by default the field's name.
        metavar: what stands for the value in `--help`.
        least: the smallest whole number that it takes.
        shown: whether `--help` shows the default.
    """
    said = {"text": text, "flag": flag, "metavar": metavar, "least": least, "shown": shown}
    return dataclasses.field(default=default, metadata=said)


@dataclasses.dataclass(frozen=True, slots=True)
class NoOptions:
    """Options of an analysis that has none."""
