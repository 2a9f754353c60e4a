"""Rows of CSV and TSV files; malformed quoting is rejected and never becomes part of a text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from geomix.data.files.row import Row, reject_binary, reject_empty
from geomix.util.errors import UserError

HEAD = 20
"""Number of rows that show whether all cells of a column have quotes that CSV does not know."""

_PAIRS = ("''", "‘’", "‚‘", "“”", "„“", "„”", "””", "«»", "»«", "‹›", "›‹", "``")
"""Pairs of quotation marks that are ordinary characters to CSV."""

_SPACED = re.compile(r'\s+"')


@dataclass(frozen=True, slots=True)
class _Record:
    """One record as written in the file.

    Attributes:
        location: file and line.
        cells: their texts.
        bare: for each cell, whether it is written without CSV's own quotes.
    """

    location: str
    cells: list[str]
    bare: list[bool]

    @property
    def spaced(self) -> str | None:
        """The first cell with a space before its quote (so CSV takes the quote as text)."""
        cells = zip(self.cells, self.bare, strict=True)
        return next((cell for cell, bare in cells if bare and _SPACED.match(cell)), None)

    def in_others(self, index: int) -> bool:
        """Return whether a cell has quotes that CSV does not know."""
        return self.bare[index] and in_foreign_quotes(self.cells[index])


def in_foreign_quotes(text: str) -> bool:
    """Return whether a text has single or typographic quotes around it."""
    text = text.strip()
    return len(text) > 1 and text[0] + text[-1] in _PAIRS


def separated_rows(path: Path, file: TextIO, separator: str, longest: int) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file, under the names in its first line.

    Args:
        path: of the file, for messages.
        file: opened without conversion of line ends.
        separator: between two cells.
        longest: most characters of a line, or of a cell.

    Raises:
        UserError: it cannot be split into rows, or its quotes are unknown to CSV.
    """
    records = _records(path, file, separator, longest)
    first = next(records, None)
    if first is None:
        return
    names = first.cells
    _check_names(first, separator)
    head: list[_Record] = []
    try:
        head.extend(islice(records, HEAD))
        broken = None
    except UserError as error:  # of a row after some that can be read
        broken = error
    _check_quotes(names, [record for record in head if len(record.cells) == len(names)])
    for record in chain(head, records):
        yield record.location, _row(record, names, separator)
    if broken is not None:
        raise broken


def _records(path: Path, file: TextIO, separator: str, longest: int) -> Iterator[_Record]:
    """Yield the records of a file, without empty lines."""
    csv.field_size_limit(longest)
    lines = _Lines(path, file, longest)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    field = re.compile(rf'(?:^|{separator})("(?:[^"]|"")*"|[^{separator}]*)')
    columns = empty = 0
    while True:
        location = f"{path}:{reader.line_num + 1}"
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # what follows cannot be split into rows
            raise UserError(f"{location}: not {_message(separator, error)}") from None
        reject_binary(location, "".join(cells))
        if len(cells) <= 1 and columns != 1 and not "".join(cells).strip():
            empty += 1
            reject_empty(location, empty)
            continue
        if not cells:
            continue
        empty, columns = 0, columns or len(cells)
        as_written = [found[1] for found in field.finditer("".join(lines.of_record).rstrip("\r\n"))]
        same = len(as_written) == len(cells)
        bare = [same and not text.startswith('"') for text in as_written] if same else []
        record = _Record(location, cells, bare or [False] * len(cells))
        if record.spaced is not None:
            raise UserError(
                f"{location}: a space before a quote ({record.spaced!r:.60}), which makes the "
                f"quotes part of the text; write the quote right after the {_NAMES[separator]}"
            )
        yield record


class _Lines:
    """Lines of a file, each within the limit; keeps those of the current record."""

    def __init__(self, path: Path, file: TextIO, longest: int) -> None:
        self.path, self.file, self.longest = path, file, longest
        self.of_record: list[str] = []
        self.number = self.size = 0

    def begin(self) -> None:
        """Drop the lines of the last record."""
        self.of_record.clear()
        self.size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number += 1
        line = self.file.readline(self.longest + 1)
        if not line:
            raise StopIteration
        self.of_record.append(line)
        self.size += len(line)
        location = f"{self.path}:{self.number}"
        if len(line) > self.longest:
            raise UserError(f"{location}: a line of more than {self.longest:,} characters")
        if self.size > 2 * self.longest:
            raise UserError(
                f'{location}: a row of more than {2 * self.longest:,} characters; is a quote (") '
                "left open?"
            )
        return line


_NAMES = {",": "comma", "\t": "tab"}


def _message(separator: str, error: csv.Error) -> str:
    name = "CSV" if separator == "," else "TSV"
    if "end of data" in str(error):
        return f'{name} ({error}); is a quote (") left open?'
    if "expected after" in str(error):
        advice = 'leave no space there, and double a quote that belongs to the text ("")'
        return f"{name} (something behind a closing quote: {error}); {advice}"
    return f"{name} ({error})"


def _row(record: _Record, names: Sequence[str], separator: str) -> dict[str, str] | str:
    cells = record.cells
    if len(cells) == len(names):
        return dict(zip(names, cells, strict=True))
    advice = f"; quote a text that holds {separator!r}" if len(cells) > len(names) else ""
    if advice and any(cell.strip()[:1] in set("".join(_PAIRS)) - {""} for cell in cells):
        advice += ' with " (other quotes are none to CSV)'
    return f"{len(cells)} fields, but the first line names {len(names)} columns{advice}"


def _check_names(first: _Record, separator: str) -> None:
    """Reject implausible column names."""
    location, names = first.location, first.cells
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{location}: two columns of the same name ({twice[0]!r:.60}); rename one")
    other = next((c for c in "\t;," if c != separator and c in names[0]), None)
    if len(names) == 1 and other:
        files = {"\t": " Then name it .tsv", ",": " Then name it .csv"}.get(other, "")
        raise UserError(
            f"{location}: one column, {names[0]!r:.60}; are its columns apart by {other!r}, not "
            f"{separator!r}?{files}"
        )
    for index, name in enumerate(names):
        if first.in_others(index):
            raise _foreign(location, f"the name of a column, {name!r:.60},")


def _check_quotes(names: Sequence[str], head: Sequence[_Record]) -> None:
    """Reject a column whose cells all have quotes that CSV does not know."""
    for index, name in enumerate(names):
        filled = [record for record in head if record.cells[index].strip()]
        if filled and all(record.in_others(index) for record in filled):
            cell = filled[0].cells[index]
            raise _foreign(filled[0].location, f"every '{name}' ({cell!r:.60})")


def _foreign(location: str, what: str) -> UserError:
    return UserError(
        f'{location}: {what} stands in quotes that CSV takes for text; write ", or, where they '
        'belong to the text, put " around them'
    )
