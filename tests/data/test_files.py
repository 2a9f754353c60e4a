"""Files as users have them: suffixes, quotes, packed files, names that are nearly right."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from geomix.config.data import Columns
from geomix.config.source_names import is_hub_id, is_own, is_path, without_suffix
from geomix.data.example import Example
from geomix.data.files import json_rows, packed, row
from geomix.data.files import tables as table
from geomix.data.sources import hub
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

FACTS = [{"prompt": "Where is Ona?", "target": "Lund"}, {"prompt": "And Mi?", "target": "Turku"}]
FOUND = [Example(fact["prompt"], fact["target"]) for fact in FACTS]
CSV = "prompt,target\nWhere is Ona?,Lund\nAnd Mi?,Turku\n"
LINES = "".join(json.dumps(fact) + "\n" for fact in FACTS)


def said(source: object, **asked: Any) -> str:
    """The one line that refuses a source."""
    with pytest.raises(UserError) as raised:
        examples_of(str(source), Request(**{"count": 2, "seed": 0, **asked}))
    (line,) = raised.value.lines
    return line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("FACTS.CSV", CSV),
        ("facts.Tsv", CSV.replace(",", "\t")),
        ("facts.ndjson", LINES),
        ("facts.JSON", json.dumps(FACTS)),
        ("facts", LINES),
        ("facts.txt", json.dumps(FACTS)),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_ending_in_any_case_packed_or_not(
    tmp_path: Path, name: str, content: str, zipped: bool
) -> None:
    if zipped and "." not in name:
        pytest.skip("a file without an ending is not packed by one")
    file = tmp_path / (name + ".gz" * zipped)
    file.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    assert examples_of(str(file), Request(2, 0)) == FOUND
    assert is_own(str(file))


def test_what_is_here_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "_ask_once", asked.append)
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/facts").write_text(LINES)
    assert examples_of("mine/facts", Request(2, 0)) == FOUND
    Path("mine/notes").mkdir()
    Path("mine/notes/readme.md").write_text("nothing")
    assert "a folder without data files" in said("mine/notes")
    assert "did you mean 'mine/facts'?" in said("mine/fact")
    assert asked == []
    assert not is_hub_id("mine/facts")
    assert is_hub_id("mine/others")
    assert [is_path(name) for name in ("./a", "../a", "~/a", "a.CSV.gz", "owner/set")] == [
        *[True] * 4,
        False,
    ]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("data/facs.csv", "; did you mean 'data/facts.csv'?"),
        ("data/facts.jsonl", "; did you mean 'data/facts.csv'?"),
        ("data/FACTS.csv", "; did you mean 'data/facts.csv'?"),
        ("dta/facts.csv", ", and no folder 'dta'; did you mean 'data'?"),
        ("data/zzz.csv", "no such file (a data source)"),
    ],
)
def test_a_name_that_is_nearly_right_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/facts.csv").write_text(CSV)
    assert said(asked).startswith(f"{asked}: no such file")
    assert meant in said(asked)


QUOTES: dict[str, tuple[str, str]] = {
    "space before a quote": ('prompt,target\nq, "Lund"\n', ":2: a space before a quote"),
    "in the first column": ('prompt,target\n "q",a\n', ":2: a space before a quote"),
    "with the separator in it": ('prompt,target\n"q", "Lund, by the sea"\n', ":2: a space before"),
    "in the second row": ('prompt,target\nq,a\nr,  "b"\n', ":3: a space before a quote"),
    "in a column nobody asked for": ('prompt,target,al\nq,a, "b"\n', ":2: a space before a quote"),
    "in the names": ('prompt, "target"\nq,a\n', ":1: a space before a quote"),
    "text behind a quote": ('prompt,target\n"q" he said,a\n', ":2: not CSV (something behind a"),
    "a space behind a quote": ('prompt,target\n"q" ,a\n', ":2: not CSV (something behind a"),
    "single quotes": ("prompt,target\n'q','a'\n'r','b'\n", ":2: every 'prompt' (\"'q'\")"),
    "single quotes in one column": ("prompt,target\nq,'a'\nr,'b'\n", ":2: every 'target'"),
    "typographic quotes": ("prompt,target\nq,“a”\nr,„b“\n", ":2: every 'target' ('“a”')"),
    "quoted names": ("'prompt','target'\nq,a\n", ":1: the name of a column, \"'prompt'\""),
    "a separator in them": ("prompt,target\n“q, r”,a\n", "quote a text that holds ',' with \""),
}


@pytest.mark.parametrize("case", QUOTES)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_half_a_quote_never_becomes_part_of_a_text(
    tmp_path: Path, case: str, separator: str
) -> None:
    content, says = QUOTES[case]
    file = tmp_path / ("x.csv" if separator == "," else "x.tsv")
    file.write_text(content.replace(",", separator))
    if separator == "\t":
        says = says.replace("CSV", "TSV").replace("','", r"'\t'")
    assert says in said(file)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ('q," ""Lund"""', ' "Lund"'),  # CSV's own quotes round it: meant
        ("q,\"'tis, 'twas'\"", "'tis, 'twas'"),
        ('q,say "hi"', 'say "hi"'),
        ('"he said, ""no""", Lund', " Lund"),
        ('q,"“Imagine”"', "“Imagine”"),
    ],
)
def test_quotes_that_are_meant_stay(tmp_path: Path, line: str, target: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f"prompt,target\n{line}\n")
    assert examples_of(str(file), Request(1, 0))[0].target == target


def test_one_title_in_quotes_does_not_make_a_column_of_them(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("prompt,target\nq,“Imagine”\nr,Help!\n")
    assert [e.target for e in examples_of(str(file), Request(2, 0))] == ["“Imagine”", "Help!"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_value_is_no_text(tmp_path: Path, value: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(f'{{"prompt": "q", "target": {value}, "n": {value}}}\n')
    assert f"it is {value}, no value at all; leave the row out" in said(file, count=1)
    columns = Columns(target="prompt")
    line = said(file, count=1, template="{n}?", columns=columns)
    assert f": 'n' is {value}, no value at all" in line


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["b", None], "one of them is None; leave it out"),
        ([7], "one of them is 7; leave it out, or put it in quotes"),
        ("['b']", 'it is "[\'b\']", a text that is no JSON list; write \'["one", "two"]\''),
        ({"b": 1}, "it is {'b': 1}, no list; write a list"),
    ],
)
def test_aliases_that_are_no_list_are_shown(tmp_path: Path, value: object, says: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"prompt": "q", "target": "a", "al": value}))
    assert says in said(file, count=1, columns=Columns(aliases="al"))


@pytest.mark.parametrize("value", [None, "", " ", [], '[""]'])
def test_no_aliases_are_none(tmp_path: Path, value: object) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"prompt": "q", "target": "a", "al": value}))
    (found,) = examples_of(str(file), Request(1, 0, columns=Columns(aliases="al")))
    assert found == Example("q", "a", ("a",))


def test_what_is_no_text_says_what_it_is(tmp_path: Path) -> None:
    kinds = {
        "packed with gzip; add .gz": gzip.compress(LINES.encode()),
        "a zip file": b"PK\x03\x04\xff\xff",
        "a Parquet file; name it .parquet": b"PAR1\xff\xff",
        "a pickle, which could run code": pickle.dumps({"a": "b" * 300}),
        "save it as UTF-8": "ä".encode("latin-1"),
    }
    for says, content in kinds.items():
        file = tmp_path / "x.csv"
        file.write_bytes(content)
        assert says in said(file)
    file = tmp_path / "x.txt"
    file.write_text("prompt,target\nq,a\n")
    assert "read as JSON Lines, since its name ends in none of .jsonl" in said(file, count=1)


def test_a_file_that_is_cut_off_or_no_gzip_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress(LINES.encode())[:-12])
    assert "cannot be unpacked" in said(file, count=3)
    file.write_text(LINES)
    assert "cannot be read (Not a gzipped file" in said(file)


def test_a_list_is_read_item_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pieces in which it is read; a mistake is where it stands."""
    facts = [{"prompt": f"ä{n}\n", "target": "b" * (n % 7 + 1), "n": [n, {}]} for n in range(60)]
    file = tmp_path / "x.json"
    for size in (1, 2, 13, 1000):
        monkeypatch.setattr(json_rows, "_CHUNK", size)
        for text in (
            json.dumps(facts),
            json.dumps(facts, indent=1),
            json.dumps({"Data": facts, "Version": 1}),
        ):
            file.write_text(text)
            assert [found for _, found in table.rows(file)] == facts
        file.write_text('[\n {"prompt": "a",\n  "target" "b"}\n]')
        assert said(file) == f"{file}:3: not JSON (Expecting ':' delimiter, column 12)"
        file.write_text('[{"prompt": "a", "target": "b"}\n {"prompt": "c"}]')
        assert said(file) == f"{file}:2: not JSON (Expecting ',' delimiter, column 2)"
        file.write_text('[{"prompt": "a", "target": "b"}] x')
        assert "Extra data, column 34" in said(file)
        file.write_text('{"Data": [{"prompt": "a", "target": "b"}], "x"}')
        assert "not JSON" in said(file)


def test_endless_files_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "FREE", 10_000)
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress((LINES * 20_000).encode()))
    assert "unpacks to more than" in said(file, count=100_000)
    monkeypatch.setattr(row, "MOST_EMPTY", 50)
    for name in ("x.jsonl", "x.csv"):
        file = tmp_path / name
        file.write_text("prompt,target\n" * (name == "x.csv") + "\n" * 60)
        assert "more than 50 empty lines in a row" in said(file)
    monkeypatch.setattr(table, "LONGEST", 100)
    file = tmp_path / "x.csv"
    file.write_text('prompt,target\n"' + '\n","' * 100)
    assert "a row of more than 200 characters" in said(file)
    file = tmp_path / "x.json"
    file.write_text(json.dumps([{"prompt": "x" * 200}]))
    assert "item 1: more than 100 characters" in said(file)
    monkeypatch.setattr(json_rows, "MOST_WHOLE", 100)
    file.write_text(json.dumps({"prompt": "x" * 200}))
    assert "one JSON object of more than 100 characters" in said(file)


def test_names_without_endings() -> None:
    names = ("facts.csv", "FACTS.CSV.GZ", "a.b.jsonl", "kvr", "v1.2")
    assert [without_suffix(name) for name in names] == ["facts", "FACTS", "a.b", "kvr", "v1.2"]
