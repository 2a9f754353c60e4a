"""Text of unknown origin on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

from unicodedata import category

ESCAPED = "\N{SYMBOL FOR ESCAPE}"
"""Stands for a character that would do something to the terminal."""

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of all text up to a counterpart, which may never come."""


def harmless(text: str) -> str:
    """A text that cannot move the cursor, change colours or turn what stands around it."""
    return "".join(
        ESCAPED if c in _TURNING or (category(c) == "Cc" and c not in "\n\t") else c for c in text
    )


def plain_table(title: str, notes: Sequence[str] = ()) -> Table:
    """An empty table as the command line prints them.

    Args:
        title: stands above it, on the left.
        notes: lines that stand beneath it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title,
        caption="\n".join(notes) or None,
        caption_justify="left",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
