"""Unpacked sizes of a Parquet file's pages, from their own headers, before they are read.

A file's footer can claim anything; a reader allocates what each page's header says. Source: the
Parquet format, `PageHeader` in the compact protocol of Thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_HEADER = 2**24
"""Most bytes of one header: it may hold the smallest and the largest value of its page."""

_WINDOW = 2**12  # bytes read for a header at first

_UNCOMPRESSED, _COMPRESSED = 2, 3  # fields of a header
_COUNTED = (5, 8)  # the fields that hold a data page's own header, versions 1 and 2

_STRUCT = 12
_NUMBERS = (3, 4, 5, 6)
_DOUBLE, _BINARY = 7, 8
_FALSE = 2


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of one column in one row group.

    Attributes:
        largest: unpacked bytes of the largest one.
        values: number of values, including nulls and the items of lists.
    """

    largest: int
    values: int


def pages_of(file: BinaryIO, column: Any) -> Pages:
    """Read the headers of a column's pages.

    Args:
        file: the Parquet file.
        column: pyarrow's `ColumnChunkMetaData`.

    Raises:
        ValueError: the headers do not follow the format.
    """
    offsets = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        offsets.append(column.dictionary_page_offset)
    at = min(offsets)
    end = at + column.total_compressed_size
    largest = values = 0
    while at < end and values < column.num_values:
        header, length = _header(file, at)
        packed, unpacked = header.get(_COMPRESSED), header.get(_UNCOMPRESSED)
        if (
            not isinstance(packed, int)
            or not isinstance(unpacked, int)
            or min(packed, unpacked) < 0
        ):
            raise ValueError("a page without a size")
        largest = max(largest, unpacked)
        counts = [header[key].get(1) for key in _COUNTED if isinstance(header.get(key), dict)]
        values += sum(count for count in counts if isinstance(count, int) and count > 0)
        at += length + packed
    return Pages(largest, values)


def _header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of the header at an offset, by number, and its length in bytes."""
    window = _WINDOW
    while True:
        file.seek(at)
        data = file.read(window)
        try:
            return _struct(data, 0, 0)
        except IndexError:
            if len(data) < window or window > MOST_HEADER:
                raise ValueError("the header of a page is cut off, or too long") from None
        window *= 16


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return a struct's fields and the offset after it; raise IndexError if the data ends first."""
    found: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind, step = head & 0x0F, head >> 4
        if step:
            number += step
        else:
            number, at = _zigzag(data, at)
        found[number], at = _value(data, at, kind, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind <= _FALSE:
        return kind != _FALSE, at
    if kind in _NUMBERS:
        return _zigzag(data, at)
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT and depth < 4:  # noqa: PLR2004 (a header holds statistics, and no more)
        return _struct(data, at, depth + 1)
    raise ValueError("the header of a page is none")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, at
        shift += 7
        if shift > 63:  # noqa: PLR2004
            raise ValueError("the header of a page is none")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
