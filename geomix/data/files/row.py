"""A row of any file, before it is an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomix.util.errors import UserError

LONGEST = 10_000_000
"""A line of a file, or a field of one, with more characters than this is refused."""

MOST_EMPTY = 1_000_000
"""Lines without anything on them, one after the other, at most."""

Row = tuple[str, Mapping[str, Any] | str]
"""Where a row stands (`facts.jsonl:12`), and its columns or what is wrong with it."""


def refuse_empty(place: str, count: int) -> None:
    """Refuse a file that goes on and on without a row.

    Raises:
        UserError: more lines than that are empty.
    """
    if count > MOST_EMPTY:
        raise UserError(f"{place}: more than {MOST_EMPTY:,} empty lines in a row; is it whole?")


def refuse_binary(place: str, text: str) -> None:
    """Refuse a text that holds what no text holds.

    Raises:
        UserError: it does.
    """
    if "\0" in text:
        raise UserError(
            f"{place}: holds a NUL character; is it UTF-16, or no text? save it as UTF-8"
        )
