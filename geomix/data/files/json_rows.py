"""Rows of JSON and JSON Lines files, read lazily."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from geomix.data.files.row import Row, reject_binary, reject_empty
from geomix.util.errors import UserError

MOST_WHOLE = 256 * 2**20
"""Most characters of a JSON file that is one object, which is held in memory. Lists are read item
by item."""

_CHUNK = 2**20  # characters of a list read at once

_START = re.compile(r'\s*(?:\{\s*"Data"\s*:\s*)?\[')
"""Pattern of a list's start, bare or as in TriviaQA."""

_SPACE = re.compile(r"\s*")


def is_list(file: TextIO) -> bool:
    """Return whether a file begins as a JSON list; rewind it."""
    start = file.read(4096).lstrip()
    file.seek(0)
    return start.startswith("[")


def line_rows(path: Path, file: TextIO, longest: int) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file: one object a line.

    Args:
        path: of the file, for messages.
        file: opened with a line feed as the only line end: a text may hold U+2028.
        longest: most characters of a line.

    Raises:
        UserError: a line is too long, or is not text.
    """
    empty = 0
    for number in count(1):
        line = file.readline(longest + 1)
        if not line:
            return
        if len(line) > longest:
            raise UserError(f"{path}:{number}: a line of more than {longest:,} characters")
        reject_binary(f"{path}:{number}", line)
        empty = 0 if line.strip() else empty + 1
        reject_empty(f"{path}:{number}", empty)
        if not empty:
            yield f"{path}:{number}", _row(line)


def json_rows(path: Path, file: TextIO, longest: int) -> Iterator[Row]:
    """Yield the rows of a JSON file: a list of objects, an object with a list `Data`, or one row.

    Args:
        path: of the file, for messages.
        file: opened as text.
        longest: most characters of a list item.

    Raises:
        UserError: it is not JSON, or too large.
    """
    window = _Window(path, file, longest)
    if start := _START.match(window.text):
        yield from _items(window, start.end(), wrapped="{" in start.group())
        return
    for number, row in enumerate(_whole(path, window), start=1):
        yield f"{path} item {number}", row if isinstance(row, dict) else "not a JSON object"


class _Window:
    """Window on a file that advances as items are read."""

    def __init__(self, path: Path, file: TextIO, longest: int) -> None:
        self.path, self.file, self.longest = path, file, longest
        self.text = file.read(_CHUNK)
        self.line, self.column = 1, 0  # where the text begins; the column from 0

    def move(self, to: int) -> int:
        """Drop the text before an index and read at least as much as is left; return its length.

        At the end of the file nothing is dropped or read.
        """
        passed, rest = self.text[:to], self.text[to:]
        more = self.file.read(max(_CHUNK, len(rest)))
        if not more:
            return 0
        lines = passed.count("\n")
        self.column = len(passed) - passed.rfind("\n") - 1 if lines else self.column + len(passed)
        self.line += lines
        self.text = rest + more
        return len(more)

    def rest(self, index: int) -> str:
        """Return the rest of the file from an index on.

        Raises:
            UserError: it is too much to hold.
        """
        kept = self.text[index:]
        kept += self.file.read(MOST_WHOLE + 1 - len(kept))
        if len(kept) > MOST_WHOLE:
            raise UserError(
                f"{self.path}: one JSON object of more than {MOST_WHOLE:,} characters; write its "
                "rows as JSON Lines (.jsonl), which are read one by one"
            )
        return kept

    def after_space(self, index: int) -> int:
        """Return the index of the next non-space character, or the text's length at the end."""
        while (index := _end_of_space(self.text, index)) == len(self.text):
            if not self.move(index):
                return len(self.text)
            index = 0
        return index

    def wrong(self, what: str, index: int) -> UserError:
        """Return the error for a file that is not JSON at an index of the text."""
        passed = self.text[:index]
        lines = passed.count("\n")
        column = index - passed.rfind("\n") if lines else self.column + index + 1
        return UserError(f"{self.path}:{self.line + lines}: not JSON ({what}, column {column})")


def _end_of_space(text: str, index: int) -> int:
    found = _SPACE.match(text, index)
    assert found is not None  # the pattern also matches no white space
    return found.end()


def _items(window: _Window, index: int, *, wrapped: bool) -> Iterator[Row]:
    """Yield the items of a list whose bracket is just before an index."""
    path, number = window.path, 0
    index = window.after_space(index)
    while window.text[index : index + 1] != "]":
        number += 1
        item, index = _item(window, index, number)
        yield f"{path} item {number}", item if isinstance(item, dict) else "not a JSON object"
        index = window.after_space(index)
        following = window.text[index : index + 1]
        if following == ",":
            index = window.after_space(index + 1)
        elif following != "]":
            raise window.wrong("Expecting ',' delimiter" if following else "the list ends", index)
    index = window.after_space(index + 1)
    if wrapped:
        _check_rest(window, index)
    elif index < len(window.text):
        raise window.wrong("Extra data", index)


def _item(window: _Window, index: int, number: int) -> tuple[Any, int]:
    """Return the item that begins at an index, and the index after it."""
    while True:
        try:
            item, end = _DECODER.raw_decode(window.text, index)
        except json.JSONDecodeError as error:
            read = len(window.text) - index
            if read <= window.longest and window.move(index):
                index = 0
                continue
            if read > window.longest:
                raise UserError(
                    f"{window.path} item {number}: not JSON within {window.longest:,} characters "
                    f"({error.msg})"
                ) from None
            raise window.wrong(error.msg, error.pos) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{window.path} item {number}: not JSON ({_message(error)})") from None
        if end == len(window.text) and window.move(index):  # a number may continue
            index = 0
            continue
        if end - index > window.longest:
            what = f"more than {window.longest:,} characters"
            raise UserError(f"{window.path} item {number}: {what}")
        return item, end


def _check_rest(window: _Window, index: int) -> None:
    """Reject a text that does not continue an object whose first value was the list."""
    rest = window.rest(index)
    try:
        _object("{" + rest.removeprefix(","))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{window.path}: not JSON ({_message(error)})") from None


def _whole(path: Path, window: _Window) -> list[Any]:
    try:
        whole = _object(window.rest(0))
    except (ValueError, RecursionError) as error:
        location, advice = str(path), ""
        if isinstance(error, json.JSONDecodeError):
            location += f":{error.lineno}"
            if not error.doc.strip():
                advice = "; the file is empty"
            elif error.msg == "Extra data":
                advice = "; is it JSON Lines? then name it .jsonl"
        raise UserError(f"{location}: not JSON ({_message(error)}){advice}") from None
    if isinstance(whole, dict):
        whole = whole["Data"] if isinstance(whole.get("Data"), list) else [whole]
    if not isinstance(whole, list):
        raise UserError(f"{path}: not a list of JSON objects")
    return whole


def _object(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object and reject duplicate keys, of which Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _row(line: str) -> Mapping[str, Any] | str:
    try:
        row = _object(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({_message(error)})"
    return row if isinstance(row, dict) else "not a JSON object"


def _message(error: Exception) -> str:
    """Describe why a text is not JSON, with only the column as location."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    if "integer string conversion" in str(error):
        return "a number of more than 4,300 digits"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
