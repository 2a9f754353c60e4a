"""Text of unknown origin on a terminal."""

from __future__ import annotations

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
