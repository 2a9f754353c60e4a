"""Files that are not what they should be, through the command line: one clear line, status 2."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from geomix.util.terminal import ESCAPED

Write = Callable[[str, "str | bytes"], Path]
ROW = '{"prompt": "p", "target": "t"}\n'


def of(**fields: Any) -> str:
    """A row as a line of JSON Lines."""
    return json.dumps({"prompt": "p", "target": "t"} | fields) + "\n"


def packed(**fields: Any) -> bytes:
    """Three rows as Parquet."""
    sink = pyarrow.BufferOutputStream()
    rows = [{"prompt": "p", "target": "t"} | fields] * 3
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found


LONG = "x" * 10_000_001
FILES: dict[str, tuple[str, str | bytes, str]] = {
    # what is wrong: (file, content, what the line says after the file's name)
    "wrong column": (
        "x.jsonl",
        '{"q": "p", "target": "t"}\n' * 2,
        " has no column 'prompt'; it has q, ta",
    ),
    "missing column": ("x.csv", "prompt,answer\na,b\n", " has no column 'target'; it has promp"),
    "space in a column": (
        "x.csv",
        "prompt, target\na,b\n",
        "; it has prompt, ' target'; remove th",
    ),
    "empty JSONL": ("x.jsonl", "", ": 0 examples found (it holds no rows)"),
    "empty CSV": ("x.csv", "", ": 0 examples found (it holds no rows)"),
    "empty JSON": ("x.json", "", ":1: not JSON (Expecting value, column 1); the file is empty"),
    "white JSONL": ("x.jsonl", " \n\t\n\n", "(it holds no rows)"),
    "white CSV": ("x.csv", " \n\n  \n", "(it holds no rows)"),
    "key twice": ("x.jsonl", '{"prompt": "p", "prompt": "q"}', ":1: not JSON (the key 'prompt'"),
    "UTF-16": ("x.jsonl", ROW.encode("utf-16"), "cannot be read as UTF-8 text"),
    "UTF-16 without a mark": ("x.jsonl", ROW.encode("utf-16-le"), ":1: holds a NUL character"),
    "NUL in a CSV": ("x.csv", "prompt,target\na\0,b\n", ":2: holds a NUL character"),
    "packed": ("x.jsonl", b"\x1f\x8b\x08\x00", "packed with gzip; add .gz to its name"),
    "mixed types": ("x.jsonl", ROW + of(target=3), ":2: 'target' is not a text with at least one"),
    "null": ("x.jsonl", of(target=None), ":1: 'target' is not a text"),
    "number": ("x.jsonl", of(target=7), "one character (it is 7; put it in quotes)"),
    "truth": ("x.jsonl", of(target=True), "(it is True)"),
    "nested": ("x.jsonl", of(target={"text": "t"}), "(it is {'text': 't'})"),
    "list": ("x.jsonl", of(prompt=["a"]), ":1: 'prompt' is not a text"),
    "only spaces": ("x.jsonl", of(prompt="   "), "one character (it is ' ')"),
    "half a character": ("x.jsonl", of(prompt="\ud800"), ":1: 'prompt' holds half a character"),
    "cut line": ("x.jsonl", ROW + '{"prompt": "q", "ta', ":2: not JSON (Unterminated string start"),
    "cut JSON": ("x.json", f"[{ROW},\n{ROW[:-3]}", ":3: not JSON (Unterminated string starting at"),
    "gigantic line": ("x.jsonl", of(target=LONG), ":1: a line of more than 10,000,000 characters"),
    "gigantic field": ("x.json", f"[{of(target=LONG)}]", "item 1: more than 10,000,000 characters"),
    "gigantic cell": (
        "x.csv",
        f'prompt,target\n"{LONG}",b\n',
        ":2: a line of more than 10,000,000 char",
    ),
    "endless number": ("x.jsonl", '{"a": ' + "9" * 5000 + "}", "a number of more than 4,300 dig"),
    "endless nesting": ("x.json", "[" * 100_000, "nested too deep"),
    "JSON object": ("x.json", '{"a": 1}', " has no column 'prompt'; it has a"),
    "JSON lists": ("x.json", '[["p", "t"]]', "item 1: not a JSON object"),
    "JSON number": ("x.json", "12", "not a list of JSON objects"),
    "JSON named JSONL": ("x.jsonl", f"[\n{ROW}]", ":1: a JSON list, but JSON Lines are one object"),
    "JSONL named JSON": ("x.json", ROW * 2, ":2: not JSON (Extra data, column 1); is it JSON Line"),
    "too few cells": ("x.csv", "prompt,target\na\n", ":2: 1 fields, but the first line names 2"),
    "too many cells": ("x.csv", "prompt,target\na,b,c\n", "; quote a text that holds ','"),
    "header twice": ("x.csv", "prompt,target,target\na,b,c\n", ":1: two columns of the same name"),
    "open quote": ("x.csv", 'prompt,target\n"a,b\nc,d\n', 'is a quote (") left open?'),
    "TSV named CSV": ("x.csv", "prompt\ttarget\na\tb\n", "Then name it .tsv"),
    "semicolons": ("x.csv", "prompt;target\na;b\n", "are its columns apart by ';', not ','?"),
    "random Parquet": (
        "x.parquet",
        bytes(range(256)) * 9,
        "cannot be read as Parquet (Parquet mag",
    ),
    "cut Parquet": ("x.parquet", packed()[:-20], "cannot be read as Parquet (Parquet magic bytes"),
    "torn Parquet": ("x.parquet", packed()[:9] + b"\xff" * 30 + packed()[39:], "read as Parquet ("),
    "binary Parquet": ("x.parquet", packed(prompt=b"p\xff"), "row 1: 'prompt' is not a text"),
    "null Parquet": ("x.parquet", packed(target=None), "row 1: 'target' is not a text"),
    "terminal codes": (
        "x.jsonl",
        '{"\\u001b[31mred\\u202e": "a"}',
        f"it has {ESCAPED}[31mred{ESCAPED}",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file_is_one_line(desk: Any, case: str) -> None:
    name, content, says = FILES[case]
    desk.write(name, content)
    config = f"stages: [{{data: {{source: {name}, limit: 2}}}}]\n"
    for arguments in (desk.train(config), ["data", "show", name, "--limit", "2"]):
        desk.refuses(arguments, says)
        assert name in desk.run(arguments).stderr.removeprefix("geomix: run.yaml:1 ")[:60]


def no_file(folder: Path) -> None:
    """Leave `x.jsonl` out."""


def a_directory(folder: Path) -> None:
    (folder / "x.jsonl").mkdir()


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.jsonl")


def a_link_to_nothing(folder: Path) -> None:
    (folder / "x.jsonl").symlink_to("nowhere")


def a_link_to_itself(folder: Path) -> None:
    (folder / "x.jsonl").symlink_to("x.jsonl")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (no_file, "x.jsonl: no such file"),
        (a_directory, "x.jsonl: cannot be read: a folder without data files"),
        (a_pipe, "x.jsonl: cannot be read, it is no regular file"),
        (a_link_to_nothing, "x.jsonl: no such file"),
        (a_link_to_itself, "x.jsonl: cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_what_is_no_file_is_one_line(desk: Any, make: Callable[[Path], None], says: str) -> None:
    make(desk.folder)
    desk.refuses(desk.train("stages: [{data: x.jsonl}]\n"), says)
    desk.refuses(["data", "show", "x.jsonl"], says)


def test_a_file_without_permission_is_one_line(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root every file can be read, so the refusal is played."""
    desk.write("x.jsonl", ROW)
    really = io.open

    def refuse(file: Any, *arguments: Any, **keys: Any) -> Any:
        if str(file).endswith("x.jsonl"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return really(file, *arguments, **keys)

    arguments = desk.train("stages: [{data: x.jsonl}]\n")
    monkeypatch.setattr(io, "open", refuse)
    desk.refuses(arguments, "x.jsonl: cannot be read (Permission denied)")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_a_byte_order_mark_is_no_mistake(desk: Any, name: str) -> None:
    text = "prompt,target\np,t\n" if name == "x.csv" else f"[{ROW}]" if name == "x.json" else ROW
    desk.write(name, b"\xef\xbb\xbf" + text.encode())
    shown = desk.run(["data", "show", name, "--limit", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["shown"][0]["prompt"] == "p"


def test_data_cannot_act_on_the_terminal(desk: Any) -> None:
    acting = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\u202e\x00"
    desk.write("x.jsonl", of(prompt=f"a{acting}b", target=f"c{acting}d"))
    shown = desk.run(["data", "show", "x.jsonl", "--limit", "1"])
    assert shown.exit_code == 0, shown.output
    text = shown.stdout.replace("\n", "")
    assert text.isprintable()
    assert f"a{ESCAPED}]0;title{ESCAPED}{ESCAPED}[2J{ESCAPED}31m" in text


UPSTREAM: dict[str, tuple[str, str]] = {
    "words empty": ("stages.0.mix={source: random-words, vocabulary: nltk, path: e.txt}", "e.txt:"),
    "words not UTF-8": (
        "stages.0.mix={source: random-words, vocabulary: nltk, path: u.txt}",
        "u.txt: cannot be read as the NLTK words corpus ('utf-8' codec",
    ),
    "words nowhere": (
        "stages.0.mix={source: random-words, vocabulary: nltk, path: none.txt}",
        "none.txt: cannot be read as the NLTK words corpus (No such file",
    ),
    "words no zip": (
        "stages.0.mix={source: random-words, vocabulary: nltk, path: bad.zip}",
        "bad.zip: cannot be read as the NLTK words corpus (File is not a zip",
    ),
    "words a pipe": (
        "stages.0.mix={source: random-words, vocabulary: nltk, path: pipe}",
        "pipe: cannot be read as the NLTK words corpus (it is no regular file)",
    ),
    "LAMA without relations": (
        "stages.0.data={source: lama, path: lama}",
        "lama: LAMA's relations.jsonl (the templates) is not beside it; copy it there",
    ),
    "empty folder": ("stages.0.data={source: popqa, path: empty}", "empty: no file *.tsv or "),
    "another dataset": ("stages.0.data={source: popqa, path: x.jsonl}", "1: 'question' is missing"),
    "nowhere": ("stages.0.data={source: popqa, path: none}", "none: no such file"),
    "no network": ("stages.0.data=popqa", "download it from https://huggingface.co/datasets/akar"),
    "no hub": ("stages.0.data=owner/name", "then give a file as source:"),
}


@pytest.mark.parametrize("case", UPSTREAM)
def test_a_broken_copy_of_a_dataset_is_one_line(desk: Any, case: str) -> None:
    desk.write("e.txt", " \n")
    desk.write("u.txt", "word\n".encode("utf-16"))
    desk.write("bad.zip", b"PK\x03\x04and no more")
    desk.write("x.jsonl", ROW)
    desk.write("lama/TREx/P1.jsonl", '{"obj_label": "a", "sub_label": "b", "predicate_id": "P1"}')
    (desk.folder / "empty").mkdir()
    os.mkfifo(desk.folder / "pipe")
    override, says = UPSTREAM[case]
    desk.refuses(desk.train("stages: [{data: kvr}]\n", "--set", override), says)


def test_words_that_are_not_installed_are_one_line(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    config = "stages: [{data: kvr, mix: {source: random-words, vocabulary: nltk}}]\n"
    desk.refuses(desk.train(config), "the NLTK words corpus is not installed; download https://raw")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["train", "cut.yaml"], ["cut.jsonl:1: not JSON"], marks=pytest.mark.slow),
        (["data", "show", "cut.jsonl", "--limit", "1"], ["cut.jsonl:1: not JSON"]),
        (["data", "overlap", "alone.yaml"], ["alone: it mixes nothing in that facts could overl"]),
        (["train", "alone.yaml", "--set", "sed=1", "--set", "a.b=1"], ["mean 'seed'?", " a: unkn"]),
        (["train", "cut.jsonl"], ["cut.jsonl:1: not YAML"]),
    ],
)
def test_at_the_real_command_line(desk: Any, arguments: list[str], says: list[str]) -> None:
    desk.write("cut.jsonl", '{"prompt": "q", "ta')
    desk.write("cut.yaml", "stages: [{data: cut.jsonl}]\n")
    desk.write("alone.yaml", "stages: [{data: {source: kvr, limit: 5}}]\n")
    before = sorted(desk.folder.rglob("*"))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("geomix")), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(says), done.stderr
    assert all(part in line for line, part in zip(lines, says, strict=True))
    assert sorted(desk.folder.rglob("*")) == before
