"""The user's own examples from a JSON Lines file."""

from __future__ import annotations

import json
from pathlib import Path

from geomix.data.example import Example
from geomix.data.split import Split
from geomix.errors import UserError

SHOWN = 5
"""How many mistakes of one file are listed."""


def examples(path: Path, count: int, split: Split) -> list[Example]:
    """The first `count` rows, `{"prompt": …, "target": …}` each; `held-out` takes the next ones.

    Held-out rows may be fewer than `count`, down to none: they are what the file has left over.

    Raises:
        UserError: the file is missing, too short, or a row is not as it should be.
    """
    if split == "id":
        raise UserError(f"{path}: a file has no split 'id'; give those rows a file of their own")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (a data source)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    first = 0 if split == "train" else count
    rows: list[Example] = []
    mistakes: list[str] = []
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, line in filled[first : first + count]:
        row = _row(line)
        if isinstance(row, Example):
            rows.append(row)
        else:
            mistakes.append(f"{path}:{number}: {row}")
    if mistakes:
        more = len(mistakes) - SHOWN
        raise UserError(*mistakes[:SHOWN], *([f"{path}: and {more} more"] if more > 0 else []))
    if split == "train" and len(rows) < count:
        found = len(rows)
        raise UserError(f"{path}: {found} examples found, {count} asked for; set limit: {found}")
    return rows


def _row(line: str) -> Example | str:
    """The example in a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    if not isinstance(row, dict):
        return "not a JSON object with 'prompt' and 'target'"
    for key in ("prompt", "target"):
        if key not in row:
            return f"'{key}' is missing (found: {', '.join(map(str, row)) or 'nothing'})"
        if not isinstance(row[key], str) or not row[key].strip():
            return f"'{key}' is not a text with at least one character"
        if any("\ud800" <= character <= "\udfff" for character in row[key]):
            return f"'{key}' holds half a character (a lone \\ud800 … \\udfff)"
    return Example(row["prompt"], row["target"])
