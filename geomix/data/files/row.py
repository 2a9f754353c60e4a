"""A row of any file, before it becomes an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomix.util.errors import UserError

LONGEST = 10_000_000
"""Most characters of a line of a file, or of a field."""

MOST_EMPTY = 1_000_000
"""Most consecutive empty lines."""

Row = tuple[str, Mapping[str, Any] | str]
"""Location of a row (`facts.jsonl:12`), and its columns or its error."""


def reject_empty(location: str, count: int) -> None:
    """Reject a file with too many consecutive empty lines.

    Raises:
        UserError: there are more than `MOST_EMPTY`.
    """
    if count > MOST_EMPTY:
        raise UserError(f"{location}: more than {MOST_EMPTY:,} empty lines in a row; is it whole?")


def reject_binary(location: str, text: str) -> None:
    """Reject a text with a NUL character.

    Raises:
        UserError: it has one.
    """
    if "\0" in text:
        raise UserError(
            f"{location}: holds a NUL character; is it UTF-16, or no text? save it as UTF-8"
        )
