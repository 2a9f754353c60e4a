"""The user's own examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geomix.data.example import Example
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.data.split import Split
from geomix.util.errors import UserError


def examples(path: Path, count: int, split: Split) -> list[Example]:
    request = Request(count, 0, split)
    return examples_of(str(path), request, "fewer" if split == "held-out" else "error")


def row(number: int) -> str:
    return json.dumps({"prompt": f"p{number}", "target": f"t{number}", "extra": 1})


def written(folder: Path, *lines: str, start: bytes = b"", end: str = "\n") -> Path:
    file = folder / "facts.jsonl"
    file.write_bytes(start + end.join(lines).encode())
    return file


def test_rows_in_order_and_held_out_rows_are_the_next(tmp_path: Path) -> None:
    file = written(tmp_path, row(1), "", row(2), row(3), "   ", row(4), "")
    assert examples(file, 3, "train") == [Example(f"p{n}", f"t{n}") for n in (1, 2, 3)]
    assert examples(file, 3, "held-out") == [Example("p4", "t4")]
    assert examples(file, 2, "held-out") == [Example("p3", "t3"), Example("p4", "t4")]
    assert examples(file, 4, "held-out") == []
    assert examples_of(str(file), Request(count=1, seed=9)) == [Example("p1", "t1")]


def test_byte_order_mark_windows_lines_and_line_separators(tmp_path: Path) -> None:
    """U+2028 ends no line of JSON Lines, though `str.splitlines` says so."""
    text = json.dumps({"prompt": "a\u2028b", "target": " 日本\n"}, ensure_ascii=False)
    file = written(tmp_path, text, row(2), start=b"\xef\xbb\xbf", end="\r\n")
    assert examples(file, 2, "train") == [Example("a\u2028b", " 日本\n"), Example("p2", "t2")]


def test_every_bad_row_is_one_line_with_its_number(tmp_path: Path) -> None:
    bad = {
        "{": "not JSON",
        "[1]": "not a JSON object",
        '{"prompt": "a"}': "'target' is missing (found: 'prompt'); name yours with columns.target",
        "{}": "'prompt' is missing (found: nothing)",
        '{"prompt": "a", "target": 7}': "'target' is not a text",
    }
    file = written(tmp_path, row(1), *bad)
    with pytest.raises(UserError) as raised:
        examples(file, 6, "train")
    assert len(raised.value.lines) == 5
    for number, (line, says) in enumerate(zip(raised.value.lines, bad.values(), strict=True), 2):
        assert line.startswith(f"{file}:{number}: {says}")


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": " \\n", "target": "a"}',
        '{"prompt": "a", "target": ""}',
        '{"prompt": null, "target": "a"}',
        '{"prompt": "a", "target": "\\ud83d"}',
        "[" * 100_000,
    ],
)
def test_what_no_tokenizer_can_take_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError) as raised:
        examples(written(tmp_path, line), 1, "train")
    assert len(raised.value.lines) == 1
    assert len(str(raised.value)) < 400


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        examples(written(tmp_path, *["{}"] * 8), 8, "train")
    assert len(raised.value.lines) == 1
    assert raised.value.lines[0].endswith(
        "has no column 'prompt'; it has none; name yours with --prompt"
    )
    with pytest.raises(UserError) as raised:
        examples(written(tmp_path, row(1), *["{}"] * 8), 9, "train")
    assert raised.value.lines[0].endswith("; 7 more like it")
    other = [json.dumps({"prompt": "p", "target": n}) for n in range(7)]
    with pytest.raises(UserError) as raised:
        examples(written(tmp_path, *other, other[6]), 8, "train")
    assert len(raised.value.lines) == 6
    assert raised.value.lines[-1].endswith("and 3 more")


def test_a_bad_row_that_is_not_asked_for_is_no_mistake(tmp_path: Path) -> None:
    assert len(examples(written(tmp_path, row(1), "{"), 1, "train")) == 1


def test_a_short_file_says_what_limit_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 examples found, 3 asked for; set limit: 2"):
        examples(written(tmp_path, row(1), row(2)), 3, "train")


def test_what_is_no_text_file_is_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    for path, says in (
        (tmp_path / "none.jsonl", "no such file"),
        (folder, "cannot be read"),
        (binary, "cannot be read as UTF-8"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            examples(path, 1, "train")
        assert len(raised.value.lines) == 1
    with pytest.raises(UserError, match="a file has no split 'id'"):
        examples(binary, 1, "id")
