"""Rows of Parquet and Arrow files, in memory bounded by their size and the requested columns.

A kilobyte of either can stand for gigabytes: 400 rows that point at one text, a page of zeros, a
list of 10⁹ equal items. So columns that are not requested are not read, a batch has no more rows
than its largest page allows, and texts in lists stay in their dictionary until a row is requested.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from geomix.data.files.parquet_pages import Pages, pages_of
from geomix.data.files.row import LONGEST, Row
from geomix.util.errors import UserError

MOST_ROWS = 1024
"""Most rows of a batch."""

MOST_BATCH = 2**27
"""Most bytes of a batch: its rows times its largest page."""

MOST_PAGE = 2**28
"""Most bytes of a page; writers make pages of a megabyte."""

MOST_ITEMS = 50_000_000
"""Most items that the lists of one column hold in one row group."""

AT_ONCE = 2**24
"""Most bytes of Python objects made at once; beyond it, rows are made one by one."""

MOST_ROW = 4 * LONGEST
"""Most bytes of one row."""

_OBJECT = 64  # bytes that Python needs for a small object and its reference


def parquet_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a Parquet file.

    Args:
        path: of the file.
        wanted: names or dotted paths of the columns to read; the others are None in every row. None
            reads all.

    Raises:
        UserError: it is no Parquet file, or a page of it unpacks to more than the limit.
        OSError: it cannot be opened.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with path.open("rb") as file:
            schema = parquet.ParquetFile(file)
            names = schema.schema_arrow.names
            chosen = _chosen(names, wanted)
            leaves = [schema.schema.column(i) for i in range(len(schema.schema))]
            shared = [leaf.path for leaf in leaves if _is_list_of_texts(leaf)]
            opened = parquet.ParquetFile(file, read_dictionary=shared)
            number = 0
            for group in range(opened.num_row_groups):
                rows = _rows_at_once(path, file, opened, group, chosen)
                batches = opened.iter_batches(rows, [group], columns=chosen, use_threads=False)
                for batch in batches:
                    for row in _rows(batch):
                        number += 1
                        yield f"{path} row {number}", _complete(row, names, chosen)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a broken page is an OSError without a number
        raise UserError(f"{path}: cannot be read as Parquet ({_first_line(error)})") from None


def _is_list_of_texts(leaf: Any) -> bool:
    return bool(leaf.max_repetition_level and leaf.physical_type == "BYTE_ARRAY")


def arrow_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows of an Arrow file: a stream of batches (as `datasets` saves), or with a footer.

    Args:
        path: of the file.
        wanted: as in `parquet_rows`.

    Raises:
        UserError: it is no Arrow file.
        OSError: it cannot be opened.
    """
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            number = 0
            for batch in _batches(file):
                names = batch.schema.names
                chosen = _chosen(names, wanted)
                for start in range(0, batch.num_rows, MOST_ROWS):
                    for row in _rows(batch.select(chosen).slice(start, MOST_ROWS)):
                        number += 1
                        yield f"{path} row {number}", _complete(row, names, chosen)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path}: cannot be read as Arrow ({_first_line(error)})") from None


def _batches(file: Any) -> Iterator[Any]:
    from pyarrow import ipc

    if file.read(6) == b"ARROW1":
        file.seek(0)
        opened = ipc.open_file(file)
        yield from (opened.get_batch(index) for index in range(opened.num_record_batches))
        return
    file.seek(0)
    yield from ipc.open_stream(file)


def _chosen(names: Collection[str], wanted: Collection[str] | None) -> list[str]:
    """Return the columns to read: a wanted name itself, else the column where its path begins."""
    if wanted is None:
        return list(names)
    asked = {name if name in names else _head(name, names) for name in wanted}
    return [name for name in names if name in asked]


def _head(path: str, names: Collection[str]) -> str:
    """Return the column in which a dotted path begins; of several (`a` and `a.b`) the longest."""
    parts = path.split(".")
    heads = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((head for head in heads if head in names), path)


def _rows_at_once(path: Path, file: Any, opened: Any, group: int, chosen: Collection[str]) -> int:
    """Return the number of rows of a row group that may be read at once.

    A value is no larger than the largest page, so the number of rows times that bounds a batch; for
    lists, the number of items in the whole group does.
    """
    known, schema = opened.metadata.row_group(group), opened.schema
    position = file.tell()
    rows = MOST_ROWS
    for index in range(known.num_columns):
        leaf = schema.column(index)
        if not any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in chosen):
            continue
        pages = pages_of(file, known.column(index))
        _check_pages(path, leaf, pages)
        rows = min(rows, MOST_BATCH // max(pages.largest, leaf.length or 0, 1))
    file.seek(position)
    return max(rows, 1)


def _check_pages(path: Path, leaf: Any, pages: Pages) -> None:
    """Reject pages that unpack to more than the limit.

    Raises:
        UserError: they do.
    """
    if pages.largest > MOST_PAGE:
        raise UserError(
            f"{path}: column '{leaf.path}' has a page of {pages.largest:,} bytes once unpacked, "
            f"more than {MOST_PAGE:,}; write the file with smaller pages"
        )
    if leaf.max_repetition_level and pages.values > MOST_ITEMS:
        raise UserError(
            f"{path}: column '{leaf.path}' has lists of {pages.values:,} items in one row group, "
            f"more than {MOST_ITEMS:,}; write the file with smaller row groups"
        )


def _rows(batch: Any) -> Iterator[Mapping[str, Any] | str]:
    """Yield the rows of a batch as Python objects, one by one if all would be too much."""
    if _size(batch) <= AT_ONCE:
        yield from batch.to_pylist()
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        size = _size(row)
        if size > MOST_ROW:
            yield f"a row of {size:,} bytes, more than {MOST_ROW:,}; leave it out, or shorten it"
        else:
            yield row.to_pylist()[0]


def _size(batch: Any) -> int:
    """Return the bytes that the rows of a batch need as Python objects."""
    return sum(_weight(column) for column in batch.columns)


def _weight(column: Any) -> int:
    """Return the bytes that a column's values need, each text counted as often as it occurs."""
    from pyarrow import compute, types

    kind, own = column.type, _OBJECT * len(column)
    if types.is_dictionary(kind):
        lengths = _lengths(column.dictionary)
        return own + int(compute.sum(lengths.take(column.indices)).as_py() or 0)
    if types.is_struct(kind):
        return own + sum(_weight(child) for child in column.flatten())
    if types.is_map(kind):
        start, end = column.offsets[0].as_py(), column.offsets[-1].as_py()
        parts = (column.keys, column.items)
        return own + sum(_weight(part.slice(start, end - start)) for part in parts)
    if types.is_nested(kind) and hasattr(column, "flatten"):
        return own + _weight(column.flatten())
    return own + int(column.nbytes)


def _lengths(texts: Any) -> Any:
    """Return the bytes of each text of a dictionary; a fixed size for other objects."""
    import pyarrow
    from pyarrow import compute, types

    kind = texts.type
    if any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary)):
        return compute.cast(compute.binary_length(texts), pyarrow.int64())
    return pyarrow.array([_OBJECT] * len(texts), pyarrow.int64())


def _complete(
    row: Mapping[str, Any] | str, names: Collection[str], chosen: Collection[str]
) -> Mapping[str, Any] | str:
    """Return a row that names every column of its file, with None for those not read."""
    if isinstance(row, str) or len(names) == len(chosen):
        return row
    return {**dict.fromkeys(names), **row}


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0].strip()
