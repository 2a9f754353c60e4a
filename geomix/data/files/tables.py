"""Rows of JSON, JSON Lines, CSV, TSV, Parquet and Arrow files, with the location of each."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from geomix.config.source_names import FILE_SUFFIXES, file_suffix
from geomix.data.files.arrow_rows import arrow_rows, parquet_rows
from geomix.data.files.csv_rows import separated_rows
from geomix.data.files.json_rows import is_list, json_rows, line_rows
from geomix.data.files.packed import GZIP, open_text
from geomix.data.files.row import LONGEST, Row
from geomix.util.errors import UserError
from geomix.util.nearby import no_such_file

PACKED = (".zip", ".tgz", ".tar", ".xz", ".bz2", ".zst", ".7z", ".gz")
"""Suffixes of files to unpack first; a `.gz` counts if its contents are not text."""

_LINES = (".jsonl", ".ndjson")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}

_KINDS = {
    b"\x1f\x8b": "packed with gzip; add .gz to its name",
    b"PK": "a zip file, as spreadsheets are too; unpack it, or save the table as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    b"SQLite": "a database; export the table as CSV or JSON Lines",
    b"\x80\x04": "a pickle, which could run code and is never opened; save it as JSON Lines",
    b"\x80\x05": "a pickle, which could run code and is never opened; save it as JSON Lines",
}
"""Type of a file that is not text, by its first bytes, and what to do."""


def rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows of one file, read lazily.

    The suffix decides the format, in lower or upper case, with or without `.gz`; without a known
    one, JSON or JSON Lines by the first character. A JSON file is a list of objects, an object
    whose `Data` is one (TriviaQA), or a single object.

    Args:
        path: of the file.
        wanted: the columns to read, names or dotted paths; None means all. A format that can skip
            columns need not read the others.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: not the name of a file")
    suffix = file_suffix(path.name)
    packed = path.suffix.lower() == GZIP
    try:
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise UserError(f"{path}: cannot be read, it is no regular file")
        if suffix in (".parquet", ".arrow") and not packed:
            if not path.exists():
                raise FileNotFoundError
            yield from (parquet_rows if suffix == ".parquet" else arrow_rows)(path, wanted)
        else:
            yield from _texts(path, suffix)
    except FileNotFoundError:
        raise UserError(f"{no_such_file(path)} (a data source)") from None
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r}: not the name of a file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_no_text(path, error)}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); is it whole?") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _texts(path: Path, suffix: str) -> Iterator[Row]:
    """Yield the rows of a text file."""
    # Only a line feed ends a line of JSON Lines: U+2028 and "\r" may occur in a text.
    with open_text(path, newline="" if suffix in _SEPARATORS else "\n") as file:
        if suffix in _SEPARATORS:
            yield from separated_rows(path, file, _SEPARATORS[suffix], LONGEST)
        elif suffix == ".json" or is_list(file):
            if suffix in _LINES:
                raise UserError(
                    f"{path}:1: a JSON list, but JSON Lines are one object each; name it .json"
                )
            yield from json_rows(path, file, LONGEST)
        elif suffix in _LINES:
            yield from line_rows(path, file, LONGEST)
        else:
            known = ", ".join(FILE_SUFFIXES)
            unknown = f"read as JSON Lines, since its name ends in none of {known}"
            for location, row in line_rows(path, file, LONGEST):
                yield location, f"{row}; {unknown}" if isinstance(row, str) else row


def _no_text(path: Path, error: UnicodeDecodeError) -> str:
    """Describe a file that cannot be decoded, and what to do."""
    with path.open("rb") as file:
        start = file.read(8)
    kind = next((kind for begin, kind in _KINDS.items() if start.startswith(begin)), None)
    if path.suffix.lower() in PACKED:
        return "packed; unpack it first, and give what was in it"
    return kind or f"cannot be read as UTF-8 text ({error}); save it as UTF-8"


def files_below(path: Path, *patterns: str) -> list[Path]:
    """Return the file itself, or a folder's files, at any depth, of the first pattern that matches.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir():
        return [path]
    try:
        for pattern in patterns:
            found = sorted(file for file in path.rglob(pattern) if file.is_file())
            if found:
                return found
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    raise UserError(f"{path}: no file {' or '.join(patterns)} in this folder or below")
