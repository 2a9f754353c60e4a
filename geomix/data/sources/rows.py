"""Conversion of rows to examples: validated fields, collected mistakes, splits by share."""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2s
from typing import Any

import numpy as np

from geomix.data.example import Example
from geomix.data.files.row import LONGEST, Row
from geomix.data.sources.base import Found, Request
from geomix.data.split import Split
from geomix.util.errors import OfKey, UserError

SHOWN = 5
"""Most mistakes of one source that are listed."""

SHARES: dict[Split, int] = {"train": 6, "id": 3, "held-out": 1}
"""Tenths of a finite source's rows in each split. A row's split depends only on its own prompt, so
splits are disjoint under every seed and limit, and equal prompts share a split."""

MOST_ROWS = 20_000
"""Most rows read from a streamed source (the paper's generic data)."""

POOL = 2
"""Usable rows of a streamed source read for each requested one, as a pool to choose from."""

MOST_CHARACTERS = 300_000_000
"""Most characters of all rows taken from a file."""

_LISTED = 200  # characters of the names of a row's columns

Convert = Callable[[Mapping[str, Any]], Example | None]
"""Converter of a row to an example; None if the source's own filter drops it."""


class RowError(ValueError):
    """An error in one row; the reader of rows adds its location."""


class NoColumn(RowError):  # noqa: N818 (a kind of it)
    """A row that lacks a column.

    Args:
        text: message for the one row.
        whole: message if all rows lack it; empty for a path that is partly present.
        key: the key of the configuration that names the column.
        role: the flag that names it where there is no configuration.
    """

    def __init__(self, text: str, whole: str, key: tuple[str, ...] = (), role: str = "") -> None:
        super().__init__(text)
        self.whole, self.key, self.role = whole, key, role

    def named_by(self, key: tuple[str, ...], advice: str = "", space: str = "") -> NoColumn:
        """Return the same error for a column that a key names."""
        row = f"{self}{advice}" + f"; or {space}" * bool(space)
        whole = self.whole and self.whole + f"; {space}" * bool(space)
        return NoColumn(row, whole, key, key[-1])


def text_in(row: Mapping[str, Any], key: str) -> str:
    """Return a text field.

    Raises:
        RowError: it is missing, or not usable for training.
    """
    value = field_in(row, key)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"'{key}' is not a text with at least one character (it is {_given(value)})")
    if len(value) > LONGEST:
        raise RowError(f"'{key}' has more than {LONGEST:,} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError(f"'{key}' holds half a character (a lone \\ud800 … \\udfff)")
    return value


def _given(value: Any) -> str:
    """Describe a value that is not a text, and what to do about it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_not_finite(value)}, no value at all; leave the row out, or fill it in"
    advice = "; put it in quotes" if type(value) in (int, float) else ""
    missing = "; the value is missing: leave the row out, or fill it in" * (value is None)
    return f"{reprlib.repr(value)}{advice}{missing}"


def _not_finite(value: float) -> str:
    """Format a non-finite number as JSON does."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_in(value: Any, key: str) -> str | None:
    """Return a numeric field as it is written in a prompt; None if it is not a number.

    Raises:
        RowError: it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        raise RowError(f"'{key}' is {_not_finite(value)}, no value at all; leave the row out")
    return str(value)


def field_in(row: Mapping[str, Any], key: str) -> Any:
    """Return a field of any type, by its name or by a dotted path of names.

    A column of that very name takes precedence, so that `a.b` may be a name. In a path a number is
    an index into a list, from 0.

    Raises:
        RowError: it is missing.
    """
    if key in row:
        return row[key]
    value: Any = row
    passed: list[str] = []
    for part in key.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise _missing(key, passed, value)
        passed.append(part)
    return value


def _missing(key: str, passed: Sequence[str], value: Any) -> NoColumn:
    """Return the error for a missing field: how far its path was found, and what is there."""
    if isinstance(value, list):
        what = f"a list of {len(value)}, from 0"
    elif isinstance(value, Mapping):
        names = ", ".join(f"'{name}'" for name in value) or "nothing"
        what = names if len(names) <= _LISTED else names[:_LISTED] + " …"
    else:
        what = f"{reprlib.repr(value)}, which has no fields"
    where = f" in '{'.'.join(passed)}'" if passed else ""
    whole = ""
    if not passed and isinstance(value, Mapping):
        named = ", ".join(name if name == name.strip() else f"'{name}'" for name in value)
        whole = f"has no column '{key}'; it has {named[:_LISTED] or 'none'}"
    return NoColumn(f"'{key}' is missing (found{where}: {what})", whole)


def texts_in(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a field that is a list of texts, also as a JSON text; empty texts are left out.

    Raises:
        RowError: it is missing or something else.
    """
    given = value = field_in(row, key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list):
        what = "a text that is no JSON list" if isinstance(given, str) else "no list"
        advice = """write '["one", "two"]'""" if isinstance(given, str) else "write a list"
        shown = f"it is {reprlib.repr(given)}, {what}; {advice}"
        raise RowError(f"'{key}' is not a list of texts ({shown})")
    if odd := [item for item in value if not isinstance(item, str)]:
        shown = f"one of them is {reprlib.repr(odd[0])}; leave it out, or put it in quotes"
        raise RowError(f"'{key}' is not a list of texts ({shown})")
    return tuple(item for item in value if item.strip())


def answered(prompt: str, target: str, others: Iterable[str] = (), subject: object = "") -> Example:
    """Build an example with every accepted answer, the target first and each once.

    Args:
        prompt: of the example.
        target: of the example.
        others: further accepted answers.
        subject: the entity that the fact is about, if the row has one; ignored if not a text.
    """
    aliases = tuple(dict.fromkeys([target, *others]))
    known = subject.strip() if isinstance(subject, str) else ""
    return Example(prompt, target, aliases, subject=known)


def share_of(example: Example) -> Split:
    """Return the split of a row of a finite source."""
    first = example.earlier[0][0] if example.earlier else example.prompt
    tenth = blake2s(first.encode(), digest_size=8).digest()[0] % 10
    return "train" if tenth < SHARES["train"] else "held-out" if tenth == 9 else "id"  # noqa: PLR2004


def by_share(
    origin: str,
    rows: Iterable[Row],
    convert: Convert,
    request: Request,
    pool: int | None = None,
) -> Found:
    """Return the first `count` examples of one split after a seeded shuffle, or all if fewer.

    The first of several rows with equal prompts counts: no prompt has two targets. A larger `count`
    begins with the smaller one's examples, unless there is a pool.

    Args:
        origin: the source, for messages.
        rows: all rows of the source, in its own order.
        convert: converts a row to an example.
        request: the request.
        pool: reading ends at `pool * count` examples, or `MOST_ROWS` rows; None reads everything.

    Raises:
        UserError: rows are malformed.
    """
    found: dict[str, Example] = {}
    mistakes: list[tuple[str, str]] = []
    total = 0
    for number, (location, row) in enumerate(rows, start=1):
        try:
            example = convert(row) if not isinstance(row, str) else _reject(row)
        except RowError as error:
            mistakes.append((location, str(error)))
            continue
        if example is not None:
            total += 1
            if share_of(example) == request.split:
                found.setdefault(_identity(example), example)
        if pool and (number >= MOST_ROWS or len(found) >= pool * request.count):
            break
    raise_mistakes(origin, mistakes)
    kept = list(found.values())
    order = np.random.default_rng([request.seed, 0x524F57]).permutation(len(kept))
    shares = ", ".join(f"{name} {share * 10} %" for name, share in SHARES.items())
    among = f" in split '{request.split}' of {total} in all ({shares})"
    return Found([kept[i] for i in order[: request.count].tolist()], origin, among)


def held_out_of(rows: int) -> int:
    """Return how many of a file's rows are held out by default: a tenth, at least one."""
    return 0 if rows < 2 else max(1, (rows + 5) // 10)  # noqa: PLR2004 (rounded half up)


def in_order(origin: str, rows: Iterable[Row], convert: Convert, request: Request) -> Found:
    """Return the first `count` rows, or for `held-out` the rows `after` them; none is skipped.

    If every row is requested, the last tenth is held out, or the rows `after`.

    Raises:
        UserError: a requested row is malformed.
    """
    count, split = request.count, request.split
    if split == "id":
        raise UserError(f"{origin}: a file has no split 'id'; give those rows a file of their own")
    before = count if request.after is None else request.after
    first = 0 if split == "train" or request.every else before
    found: list[Example] = []
    characters = examined = 0
    mistakes: list[tuple[str, str]] = []
    absent: list[NoColumn] = []
    number = -1
    for number, (location, row) in enumerate(rows):
        if number >= first + count:
            if request.every:
                raise UserError(f"{origin}: more than {count:,} rows; set a limit")
            break
        if number < first:
            continue
        examined += 1
        try:
            example = convert(row) if not isinstance(row, str) else _reject(row)
        except RowError as error:
            mistakes.append((location, str(error)))
            absent += [error] if isinstance(error, NoColumn) else []
            continue
        if example is not None:
            found.append(example)
            characters += len(example.prompt) + len(example.target)
            if characters > MOST_CHARACTERS:
                what = f"more than {MOST_CHARACTERS:,} characters in the first {number + 1:,} rows"
                raise UserError(f"{location}: {what}; set a smaller limit")
    kinds = {(one.whole, one.key): one for one in absent}
    if examined == len(absent) and len(kinds) == 1 and absent[0].whole:
        one = absent[0]
        raise OfKey(one.key, f"{origin} {one.whole}", f"; name yours with --{one.role}")
    raise_mistakes(origin, mistakes)
    if number < 0:
        return Found([], origin, " (it holds no rows)")
    if request.every:
        before = len(found) - held_out_of(len(found)) if request.after is None else before
        found = found[:before] if split == "train" else found[before:]
    among = "" if split == "train" else f" in split '{split}' (what the first {before} leave over)"
    return Found(found, origin, among)


def raise_mistakes(origin: str, mistakes: Sequence[tuple[str, str]]) -> None:
    """Raise one line for each kind of mistake: its first occurrence, and how many more there are.

    Args:
        origin: the source, for messages.
        mistakes: the location of each and what is wrong there.

    Raises:
        UserError: there is a mistake.
    """
    if not mistakes:
        return
    first: dict[str, str] = {}
    for location, what in mistakes:
        first.setdefault(what, location)
    times = Counter(what for _, what in mistakes)
    lines = [
        f"{location}: {what}" + (f"; {times[what] - 1:,} more like it" if times[what] > 1 else "")
        for what, location in first.items()
    ]
    left = sum(times[what] for what in list(first)[SHOWN:])
    raise UserError(*lines[:SHOWN], *([f"{origin}: and {left:,} more"] if left else []))


def _reject(problem: str) -> Example:
    raise RowError(problem)


def _identity(example: Example) -> str:
    return json.dumps([example.earlier, example.prompt])
