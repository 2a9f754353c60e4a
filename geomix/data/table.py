"""Rows of JSON, JSON Lines, CSV, TSV and Parquet files, with the place of each for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from geomix.errors import UserError

LONGEST = 10_000_000
"""A line of a file, or a field of one, with more characters than this is refused."""

PACKED = (".zip", ".gz", ".tgz", ".tar", ".xz", ".bz2", ".zst", ".7z")
"""Endings of what has to be unpacked first."""

Row = tuple[str, Mapping[str, Any] | str]
"""Where a row stands (`facts.jsonl:12`), and its columns or what is wrong with it."""


def rows(path: Path) -> Iterator[Row]:
    """The rows of one file, read as they are asked for.

    The format is that of the file's ending; without a known one, JSON or JSON Lines by its first
    character. A JSON file is a list of objects, an object whose `Data` is one (TriviaQA), or a
    single object.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: not the name of a file")
    try:
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise UserError(f"{path}: cannot be read, it is no regular file")
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        separated = path.suffix in (".csv", ".tsv")
        # Only a line feed ends a line of JSON Lines: U+2028 and "\r" may stand in a text.
        with path.open(encoding="utf-8-sig", newline="" if separated else "\n") as file:
            if separated:
                yield from _separated(path, file, "," if path.suffix == ".csv" else "\t")
            elif path.suffix == ".json" or _is_list(file):
                if path.suffix == ".jsonl":
                    raise UserError(
                        f"{path}:1: a JSON list, but JSON Lines are one object each; name it .json"
                    )
                yield from _json(path, file)
            else:
                yield from _lines(path, file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (a data source)") from None
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r}: not the name of a file") from None
    except UnicodeDecodeError as error:
        if path.suffix in PACKED:
            raise UserError(f"{path}: packed; unpack it first, and give what was in it") from None
        raise UserError(
            f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def files_below(path: Path, *patterns: str) -> list[Path]:
    """The file itself; in a folder and below, the files of the first pattern that matches any.

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


def _is_list(file: TextIO) -> bool:
    start = file.read(4096).lstrip()
    file.seek(0)
    return start.startswith("[")


def _object(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; Python itself would let the last of two equal keys win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice")
    return found


def _lines(path: Path, file: TextIO) -> Iterator[Row]:
    for number in count(1):
        line = file.readline(LONGEST + 1)
        if not line:
            return
        if len(line) > LONGEST:
            raise UserError(f"{path}:{number}: a line of more than {LONGEST:,} characters")
        _refuse_binary(f"{path}:{number}", line)
        if line.strip():
            yield f"{path}:{number}", _row(line)


def _row(line: str) -> Mapping[str, Any] | str:
    try:
        row = _object(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({_said(error)})"
    return row if isinstance(row, dict) else "not a JSON object"


def _said(error: Exception) -> str:
    """What is wrong with a text that should be JSON; of its place only the column."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    if "integer string conversion" in str(error):
        return "a number of more than 4,300 digits"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _json(path: Path, file: TextIO) -> Iterator[Row]:
    try:
        whole = _object(file.read())
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        place, advice = str(path), ""
        if isinstance(error, json.JSONDecodeError):
            place += f":{error.lineno}"
            if not error.doc.strip():
                advice = "; the file is empty"
            elif error.msg == "Extra data":
                advice = "; is it JSON Lines? then name it .jsonl"
        raise UserError(f"{place}: not JSON ({_said(error)}){advice}") from None
    if isinstance(whole, dict):
        whole = whole["Data"] if isinstance(whole.get("Data"), list) else [whole]
    if not isinstance(whole, list):
        raise UserError(f"{path}: not a list of JSON objects")
    for number, row in enumerate(whole, start=1):
        yield f"{path} item {number}", row if isinstance(row, dict) else "not a JSON object"


def _separated(path: Path, file: TextIO, separator: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader(file, delimiter=separator, strict=True)
    names: list[str] | None = None
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # what follows cannot be told apart into rows
            said = f"not {path.suffix[1:].upper()} ({error})"
            advice = '; is a quote (") left open?' if "end of data" in str(error) else ""
            raise UserError(f"{place}: {said}{advice}") from None
        _refuse_binary(place, "".join(cells))
        if len(cells) <= 1 and (names is None or len(names) > 1) and not "".join(cells).strip():
            continue  # an empty line
        if names is None:
            names = cells
            _check_names(place, names, separator)
        elif len(cells) == len(names):
            yield place, dict(zip(names, cells, strict=True))
        elif cells:
            advice = f"; quote a text that holds {separator!r}" if len(cells) > len(names) else ""
            columns = f"the first line names {len(names)} columns"
            yield place, f"{len(cells)} fields, but {columns}{advice}"


def _check_names(place: str, names: list[str], separator: str) -> None:
    """Refuse names of columns that cannot be meant."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{place}: two columns of the same name ({twice[0]!r:.60}); rename one")
    other = next((c for c in "\t;," if c != separator and c in names[0]), None)
    if len(names) == 1 and other:
        files = {"\t": " Then name it .tsv", ",": " Then name it .csv"}.get(other, "")
        raise UserError(
            f"{place}: one column, {names[0]!r:.60}; are its columns apart by {other!r}, not "
            f"{separator!r}?{files}"
        )


def _refuse_binary(place: str, text: str) -> None:
    if "\0" in text:
        raise UserError(
            f"{place}: holds a NUL character; is it UTF-16, or no text? save it as UTF-8"
        )


def _parquet(path: Path) -> Iterator[Row]:
    if not path.exists():
        raise FileNotFoundError
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with path.open("rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a broken page is an OSError without a number
        first = str(error).split("\n", maxsplit=1)[0].strip()
        raise UserError(f"{path}: cannot be read as Parquet ({first})") from None
