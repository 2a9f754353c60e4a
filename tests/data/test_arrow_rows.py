"""Parquet files that stand for more than they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from geomix.data.files import arrow_rows as module
from geomix.data.files.arrow_rows import parquet_rows
from geomix.data.files.parquet_pages import pages_of
from geomix.util.errors import UserError


def written(file: Path, table: pyarrow.Table, **how: Any) -> Path:
    parquet.write_table(table, file, **how)
    return file


def repeated(text: str, times: int) -> pyarrow.Array:
    """One text in a dictionary, to which so many rows point."""
    places = pyarrow.array(np.zeros(times, dtype=np.int32))
    return pyarrow.DictionaryArray.from_arrays(places, pyarrow.array([text]))


def peak(file: Path, count: int, wanted: list[str] | None = None) -> int:
    """Bytes that Arrow holds at most while so many rows are read."""
    pool = pyarrow.system_memory_pool()
    before = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pool)
    try:
        start = pool.bytes_allocated()
        most = 0
        for number, _ in enumerate(parquet_rows(file, wanted), start=1):
            most = max(most, pool.bytes_allocated() - start)
            if number == count:
                break
        return most
    finally:
        pyarrow.set_memory_pool(before)


def test_rows_that_share_a_text_are_not_all_unpacked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they would be 400 MB."""
    monkeypatch.setattr(module, "MOST_BATCH", 4_000_000)
    table = pyarrow.table({"q": repeated("A" * 1_000_000, 400), "a": ["t"] * 400})
    file = written(tmp_path / "x.parquet", table, compression="zstd")
    assert file.stat().st_size < 10_000
    assert peak(file, 400) < 20_000_000


def test_a_batch_has_no_more_rows_than_its_pages_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BATCH", 2_000_000)
    table = pyarrow.table({"q": [f"{n}" + "A" * 300_000 for n in range(100)]})
    how = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1}
    file = written(tmp_path / "x.parquet", table, data_page_size=1, **how)
    assert peak(file, 100) < 6_000_000


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    table = pyarrow.table({"q": ["x"] * 50, "z": [f"{n}" + "A" * 1_000_000 for n in range(50)]})
    file = written(tmp_path / "x.parquet", table, compression="zstd", use_dictionary=False)
    assert peak(file, 50, ["q"]) < 100_000
    (_, row) = next(iter(parquet_rows(file, ["q"])))
    assert row == {"q": "x", "z": None}
    (_, row) = next(iter(parquet_rows(file, ["none"])))
    assert row == {"q": None, "z": None}


def test_what_unpacks_to_too_much_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PAGE", 100_000)
    monkeypatch.setattr(module, "MOST_ITEMS", 1_000)
    monkeypatch.setattr(module, "MOST_ROW", 50_000)
    monkeypatch.setattr(module, "AT_ONCE", 10_000)
    page = written(tmp_path / "page.parquet", pyarrow.table({"q": ["A" * 200_000]}))
    with pytest.raises(UserError, match=r"column 'q' has a page of 200,0.. bytes once unpacked"):
        list(parquet_rows(page))
    items = pyarrow.ListArray.from_arrays([0, 2_000], repeated("B", 2_000))
    lists = written(tmp_path / "lists.parquet", pyarrow.table({"q": items}))
    with pytest.raises(UserError, match=r"lists of 2,000 items in one row group, more than 1,000"):
        list(parquet_rows(lists))
    long = pyarrow.ListArray.from_arrays([0, 1, 901], repeated("B" * 100, 901))
    rows = list(parquet_rows(written(tmp_path / "long.parquet", pyarrow.table({"q": long}))))
    assert rows[0][1] == {"q": ["B" * 100]}
    assert str(rows[1][1]).startswith("a row of 147,")


def test_headers_tell_what_a_footer_hides(tmp_path: Path) -> None:
    """Values and sizes are those of every page, in all of the format's versions and codecs."""
    table = pyarrow.table({"q": [f"{n}" * 50 for n in range(3_000)], "n": list(range(3_000))})
    for version in ("1.0", "2.0"):
        for codec in ("none", "snappy", "zstd", "gzip"):
            how = {"data_page_version": version, "compression": codec, "data_page_size": 2_000}
            file = written(tmp_path / "x.parquet", table, row_group_size=1_000, **how)
            with file.open("rb") as opened:
                known = parquet.ParquetFile(file).metadata
                for group in range(known.num_row_groups):
                    for index in range(known.num_columns):
                        column = known.row_group(group).column(index)
                        pages = pages_of(opened, column)
                        assert pages.values == column.num_values == 1_000
                        assert 0 < pages.largest <= column.total_uncompressed_size


def test_a_header_that_is_none_is_one_line(tmp_path: Path) -> None:
    table = pyarrow.table({"q": [f"{n}" for n in range(50)]})
    file = written(tmp_path / "x.parquet", table, use_dictionary=False)
    whole = file.read_bytes()
    for broken in (b"\x19" * 8, b"\xff" * 8, b"\x00" * 8):
        file.write_bytes(whole[:4] + broken + whole[12:])
        with pytest.raises(UserError, match="cannot be read as Parquet"):
            list(parquet_rows(file))


KINDS = {
    "text": pyarrow.string(),
    "large": pyarrow.large_string(),
    "lists": pyarrow.list_(pyarrow.large_list(pyarrow.string())),
    "fixed": pyarrow.list_(pyarrow.int32(), 2),
    "record": pyarrow.struct({"a": pyarrow.string(), "b": pyarrow.list_(pyarrow.float64())}),
    "map": pyarrow.map_(pyarrow.string(), pyarrow.int8()),
    "bytes": pyarrow.binary(),
}
ROWS = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=9),
        "large": st.text(max_size=9),
        "lists": st.none() | st.lists(st.lists(st.none() | st.text(max_size=3), max_size=2)),
        "fixed": st.none() | st.lists(st.integers(0, 9), min_size=2, max_size=2),
        "record": st.none()
        | st.fixed_dictionaries(
            {"a": st.none() | st.text(max_size=3), "b": st.lists(st.integers(0, 9).map(float))}
        ),
        "map": st.none()
        | st.dictionaries(st.text(max_size=2), st.integers(0, 9)).map(
            lambda found: list(found.items())
        ),
        "bytes": st.none() | st.binary(max_size=3),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6), st.sampled_from([0, 2**24]))
def test_rows_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], at_once: int
) -> None:
    file = tmp_path_factory.mktemp("x") / "x.parquet"
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema(KINDS))
    written(file, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        assert [row for _, row in parquet_rows(file)] == rows
