"""UltraChat, EvolCode, APPS, GSM8K and MATH in their upstream formats."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.data.example import Example
from geomix.data.sources import rows as rows_module
from geomix.data.sources.base import Request
from geomix.data.sources.instructions import apps_row, ultrachat_row
from geomix.data.sources.rows import RowError
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

Everything = Callable[..., dict[str, Example]]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_ultrachat_keeps_every_exchange() -> None:
    whole = Example("c", "d", earlier=(("a", "b"),))
    assert ultrachat_row({"data": ["a", "b", "c", "d"]}) == whole
    assert ultrachat_row({"data": ["a", "b", "c", "d", "unanswered"]}) == whole
    assert ultrachat_row({"data": ["a"]}) is None
    for bad in (None, [], "a", ["a", ""], ["a", 7]):
        with pytest.raises(RowError, match="'data' is not"):
            ultrachat_row({"data": bad})


def test_ultrachat_reads_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"data": [f"q{n}", f"a{n}"]}) for n in range(100)]
    file = write(tmp_path / "train_0.jsonl", "\n".join([*lines, "broken"]))
    assert len(examples_of("ultrachat", Request(10, 0, path=str(file)))) == 10
    with pytest.raises(UserError, match="not JSON"):
        examples_of("ultrachat", Request(70, 0, path=str(file)))
    monkeypatch.setattr(rows_module, "MOST_ROWS", 50)
    with pytest.raises(UserError, match="of 50 in all"):
        examples_of("ultrachat", Request(70, 0, path=str(file)))


def test_ultrachat_sample(everything: Everything, shared_data: Path) -> None:
    found = everything(
        "ultrachat", shared_data / "ultrachat" / "ultrachat_hubschema_2_DERIVED.jsonl"
    )
    assert sorted(len(example.earlier) for example in found.values()) == [2, 3]
    assert any(e.earlier[0][0].startswith("These instructions apply") for e in found.values())


def test_evolcode(everything: Everything, tmp_path: Path) -> None:
    write(tmp_path / "EvolInstruct-Code-80k.json", [{"instruction": "Add.", "output": "1 + 1"}])
    assert list(everything("evolcode", tmp_path).values()) == [Example("Add.", "1 + 1")]


def test_apps_leaves_out_other_difficulties_and_problems_without_solution() -> None:
    row = {"question": "q", "solutions": '["first", "second"]', "difficulty": "interview"}
    both = ("introductory", "interview")
    assert apps_row(row, both) == Example("q", "first")
    assert apps_row(row, ("introductory",)) is None
    for none in ("", "[]", None):
        assert apps_row({**row, "solutions": none}, both) is None
    with pytest.raises(RowError, match="'difficulty' is 'easy', not one of introductory"):
        apps_row({**row, "difficulty": "easy"}, both)


def test_apps_in_the_authors_layout_and_the_hubs(everything: Everything, tmp_path: Path) -> None:
    hub = []
    for number, difficulty in enumerate(["introductory", "competition"]):
        row = {"question": f"q{number}", "solutions": '["s"]', "difficulty": difficulty}
        hub.append(json.dumps(row))
        folder = tmp_path / "APPS" / "train" / f"{number:04}"
        write(folder / "question.txt", f"q{number}")
        write(folder / "solutions.json", ["s"])
        write(folder / "metadata.json", {"difficulty": difficulty, "url": "u"})
        write(tmp_path / "APPS" / "test" / f"{number}" / "question.txt", "another")
    file = write(tmp_path / "train.jsonl", "\n".join(hub))
    assert everything("apps", tmp_path / "APPS") == {"q0": Example("q0", "s")}
    assert everything("apps", file) == {"q0": Example("q0", "s")}
    assert set(everything("apps", file, subset="competition")) == {"q1"}


def test_apps_samples(everything: Everything, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "apps"
    found = everything("apps", folder / "apps_5_hubschema.jsonl")
    with tarfile.open(folder / "apps_train_5problems.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    assert everything("apps", tmp_path) == found
    assert len(found) == 4
    mikhail = next(e for e in found.values() if e.prompt.startswith("Mikhail walks on a"))
    assert mikhail.target.startswith("q=int(input())\n\nfor e in range(q):\n")


def test_gsm8k_sample(everything: Everything, shared_data: Path) -> None:
    found = everything("gsm8k", shared_data / "gsm8k" / "test.jsonl")
    assert len(found) == 1319
    janet = next(e for e in found.values() if e.prompt.startswith("Janet’s ducks lay 16 eggs"))
    assert janet.target.endswith("every day at the farmer’s market.\n#### 18")


def test_gsm8k_and_math_from_folders(everything: Everything, tmp_path: Path) -> None:
    write(tmp_path / "g" / "train.jsonl", {"question": "1+1?", "answer": "#### 2"})
    write(tmp_path / "g" / "test.jsonl", {"question": "no", "answer": "no"})
    assert list(everything("gsm8k", tmp_path / "g").values()) == [Example("1+1?", "#### 2")]
    for number in range(3):
        row = {"problem": f"p{number}", "solution": "$s$", "level": "Level 1", "type": "Algebra"}
        write(tmp_path / "MATH" / "train" / "algebra" / f"{number}.json", row)
        write(tmp_path / "MATH" / "test" / "algebra" / f"{number}.json", {"problem": "no"})
    found = everything("math", tmp_path / "MATH")
    assert found == {f"p{n}": Example(f"p{n}", "$s$") for n in range(3)}


def test_math_says_what_to_download() -> None:
    with pytest.raises(UserError, match="taken down") as raised:
        examples_of("math", Request(1, 0))
    (line,) = raised.value.lines
    assert "problem and solution, then give the copy as path:" in line
