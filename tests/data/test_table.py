"""Files of every format, whole and broken."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from geomix.config.data import Columns
from geomix.data.example import Example
from geomix.data.files import tables as table
from geomix.data.sources import rows
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

ROWS = [{"q": "Wo?", "a": "Zürich"}, {"q": 'say "hi",\tthen', "a": "hi\nthere"}]
COLUMNS = Columns(prompt="q", target="a")


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def separated(separator: str) -> str:
    lines = [["q", "a"], *(list(row.values()) for row in ROWS)]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in line] for line in lines]
    return "\r\n".join(separator.join(line) for line in quoted)


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found


FORMATS: dict[str, Callable[[], str | bytes]] = {
    "x.json": lambda: json.dumps(ROWS),
    "data.json": lambda: json.dumps({"Version": 1, "Data": ROWS}),
    "x.jsonl": lambda: "\n".join(map(json.dumps, ROWS)),
    "x.csv": lambda: separated(","),
    "x.tsv": lambda: separated("\t"),
    "x.parquet": lambda: parquet_bytes(ROWS),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str, start: bytes) -> None:
    content = FORMATS[name]()
    content = content.encode() if isinstance(content, str) else content
    file = written(tmp_path, name, content if "parquet" in name else start + content)
    found = examples_of(str(file), Request(2, 0, columns=COLUMNS))
    assert found == [Example(row["q"], row["a"]) for row in ROWS]
    request = Request(count=1, seed=0, split="held-out", columns=COLUMNS, template="{q} – {a}!")
    assert examples_of(str(file), request) == [Example('say "hi",\tthen – hi\nthere!', "hi\nthere")]


def test_one_object_is_one_row_and_unnamed_formats_are_recognised(tmp_path: Path) -> None:
    one = written(tmp_path, "one.json", json.dumps(ROWS[0]))
    assert [row for _, row in table.rows(one)] == ROWS[:1]
    assert [r for _, r in table.rows(written(tmp_path, "list", json.dumps(ROWS)))] == ROWS
    lines = written(tmp_path, "lines", "\n".join(map(json.dumps, ROWS)))
    assert [place for place, _ in table.rows(lines)] == [f"{lines}:1", f"{lines}:2"]


def test_accepted_answers_and_numbers_in_a_template(tmp_path: Path) -> None:
    row = {"n": 7, "a": "x", "all": '["y", "x", ""]'}
    file = written(tmp_path, "x.json", json.dumps([row]))
    columns = Columns(target="a", aliases="all")
    (found,) = examples_of(str(file), Request(1, 0, columns=columns, template="{{n}} = {n}?"))
    assert found == Example("{n} = 7?", "x", ("x", "y"))


BROKEN: dict[str, tuple[str, str | bytes, str]] = {
    "wrong column": (
        "x.csv",
        "q,b\n1,2\n",
        " has no column 'a'; it has q, b; name yours with --target",
    ),
    "empty file": ("x.csv", "", "0 examples found (it holds no rows), 1 asked for"),
    "only a header": ("x.tsv", "q\ta\n", "0 examples found (it holds no rows), 1 asked for"),
    "empty JSON": ("x.json", "", "not JSON"),
    "empty list": ("x.json", "[]", "0 examples found"),
    "empty lines": ("x.jsonl", "\n\n", "0 examples found"),
    "empty Parquet": ("x.parquet", b"", "cannot be read as Parquet"),
    "cut Parquet": ("x.parquet", parquet_bytes(ROWS)[:-9], "cannot be read as Parquet"),
    "text as Parquet": ("x.parquet", "q,a\n", "cannot be read as Parquet"),
    "UTF-16": ("x.csv", "q,a\n1,2\n".encode("utf-16"), "cannot be read as UTF-8"),
    "number": ("x.json", '[{"q": "x", "a": 7}]', "item 1: 'a' is not a text"),
    "null": ("x.parquet", parquet_bytes([{"q": "x", "a": None}]), "row 1: 'a' is not a text"),
    "list": ("x.jsonl", '{"q": ["x"], "a": "y"}', ":1: 'q' is not a text"),
    "empty cell": ("x.csv", "q,a\nx,\n", ":2: 'a' is not a text"),
    "blank cell": ("x.csv", "q,a\n  ,y\n", ":2: 'q' is not a text"),
    "too few cells": ("x.csv", "q,a\nx\n", ":2: 1 fields, but the first line names 2"),
    "too many cells": ("x.tsv", "q\ta\nx\ty\tz\n", ":2: 3 fields"),
    "open quote": ("x.csv", 'q,a\n"x,y\n', ":2: not CSV"),
    "two columns of a name": ("x.csv", "q,q,a\n", "two columns of the same name"),
    "key twice": ("x.jsonl", '{"q": "x", "a": "y", "a": "z"}', "the key 'a' stands twice"),
    "truncated": ("x.jsonl", '{"q": "x", "a": "y', ":1: not JSON"),
    "truncated JSON": ("x.json", '[{"q": "x", "a": "y"}, {', "not JSON"),
    "endless nesting": ("x.json", "[" * 100_000, "not JSON"),
    "a number of 5,000 digits": ("x.jsonl", '{"q": ' + "9" * 5000 + "}", "not JSON (a number of"),
    "list as lines": ("x.jsonl", '[\n{"q": "x", "a": "y"}]', ":1: a JSON list"),
    "lines as list": (
        "x.json",
        '{"q": "x"}\n{"q": "x"}',
        ":2: not JSON (Extra data, column 1); is",
    ),
    "tabs": ("x.csv", "q\ta\nx\ty\n", ":1: one column, 'q\\ta'"),
    "semicolons": ("x.csv", "q;a\nx;y\n", "apart by ';'"),
    "no text": ("x.csv", b"q,a\n\x00,b\n", ":2: holds a NUL"),
    "white CSV": ("x.csv", " \n  \n", "holds no rows"),
    "broken page": (
        "x.parquet",
        parquet_bytes(ROWS)[:9] + b"\xff" * 30 + parquet_bytes(ROWS)[39:],
        "",
    ),
    "a number alone": ("x.json", "7", "not a list of JSON objects"),
    "a list of texts": ("x.json", '["x"]', "item 1: not a JSON object"),
    "half a character": ("x.json", '[{"q": "x", "a": "\\ud83d"}]', "half a character"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line(tmp_path: Path, case: str) -> None:
    name, content, says = BROKEN[case]
    file = written(tmp_path, name, content)
    with pytest.raises(UserError) as raised:
        examples_of(str(file), Request(1, 0, columns=COLUMNS))
    (line,) = raised.value.lines
    assert line.startswith(str(file))
    assert says in line
    assert "\n" not in line
    assert len(line) < 400 + len(str(file))


@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_a_gigantic_field_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LONGEST", 1000)
    long = [{"q": "x", "a": "y" * 1001}]
    content = json.dumps(long) if name == "x.json" else parquet_bytes(long)
    with pytest.raises(UserError, match="1: 'a' has more than 1,000 characters"):
        examples_of(str(written(tmp_path, name, content)), Request(1, 0, columns=COLUMNS))


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_gigantic_line_is_refused_before_it_is_read_whole(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LONGEST", 1000)
    file = written(tmp_path, name, 'q,a\nb,"' + "x" * 1001 + '"')
    with pytest.raises(UserError, match=r":2: (a line of more than 1,000|not CSV)"):
        list(examples_of(str(file), Request(2, 0, columns=COLUMNS)))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, "x.csv", "q,a\n")
    file.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        examples_of(str(file), Request(1, 0, columns=COLUMNS))


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        examples_of(str(tmp_path / name), Request(1, 0, columns=COLUMNS))


@pytest.mark.parametrize(
    "template", ["{q", "{}", "all alike", "{q.__class__}", "{q[0]}", "{q!r}", "{q:>9}"]
)
def test_a_template_holds_plain_names_only(tmp_path: Path, template: str) -> None:
    file = written(tmp_path, "x.json", json.dumps(ROWS))
    with pytest.raises(UserError, match="template"):
        examples_of(str(file), Request(1, 0, columns=COLUMNS, template=template))
    with pytest.raises(UserError, match="has no column 'z'; it has "):
        examples_of(str(file), Request(1, 0, columns=COLUMNS, template="{z}"))


def test_a_packed_file_is_to_be_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "popQA.tsv.xz"
    file.write_bytes(lzma.compress(b"a\tb\n" * 50))
    with pytest.raises(UserError, match=r"popQA.tsv.xz: packed; unpack it first"):
        examples_of("popqa", Request(1, 0, path=str(file)))
