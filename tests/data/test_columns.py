"""Columns within columns, wherever a column is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from geomix.cli import main
from geomix.config.data import Columns
from geomix.data.example import Example
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

EDITS = [
    {
        "edit": {"text": "{} was born in", "who": name, "new": {"str": new}},
        "answers": [new, new.upper()],
        "year": 1900 + len(name),
    }
    for name, new in (("Ona Reed", "Lund"), ("Mi Holm", "Turku"))
]
COLUMNS = Columns(prompt="edit.text", target="edit.new.str", aliases="answers", subject="edit.who")


def written(folder: Path, name: str) -> str:
    file = folder / name
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(EDITS), file)
    elif name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(edit) + "\n" for edit in EDITS))
    elif name.endswith(".json"):
        file.write_text(json.dumps(EDITS))
    else:
        datasets.Dataset.from_list(EDITS).save_to_disk(str(file))
    return str(file)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.parquet", "saved"])
def test_every_role_takes_a_path(tmp_path: Path, name: str) -> None:
    """The prompt with its subject filled in, target, aliases, subject, template."""
    file = written(tmp_path, name)
    assert examples_of(file, Request(1, 0, columns=COLUMNS)) == [
        Example("Ona Reed was born in", "Lund", ("Lund", "LUND"), subject="Ona Reed")
    ]
    template = "{edit.who} ({year}), {answers.1}, {{}}"
    asked = Request(2, 0, columns=Columns(target="answers.0"), template=template)
    assert [e.prompt for e in examples_of(file, asked)] == [
        "Ona Reed (1908), LUND, {}",
        "Mi Holm (1907), TURKU, {}",
    ]
    assert [e.target for e in examples_of(file, asked)] == ["Lund", "Turku"]


def test_rows_of_the_hub_have_paths_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: EDITS)
    (found,) = examples_of("owner/edits", Request(1, 0, columns=COLUMNS))
    assert (found.prompt, found.target) == ("Ona Reed was born in", "Lund")


def test_a_column_of_that_very_name_counts_first(tmp_path: Path) -> None:
    rows = [{"a.b": "plain", "a": {"b": "nested", "c": "other"}, "target": "t"}]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name in ("x.json", "x.parquet"):
        prompts = {
            path: examples_of(str(tmp_path / name), Request(1, 0, columns=Columns(prompt=path)))
            for path in ("a.b", "a.c")
        }
        assert [found[0].prompt for found in prompts.values()] == ["plain", "other"]
        asked = Request(1, 0, template="{a.b} {a.c}")
        assert examples_of(str(tmp_path / name), asked)[0].prompt == "plain other"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("edit.text.str", "missing (found in 'edit.text': '{} was born in', which has no fields)"),
        ("edit.new.id", "missing (found in 'edit.new': 'str')"),
        ("edits.text", "has no column"),
        ("answers.2", "missing (found in 'answers': a list of 2, from 0)"),
        ("answers.-1", "missing (found in 'answers': a list of 2, from 0)"),
        ("answers", "is not a text with at least one character (it is ['Lund', 'LUND'])"),
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_a_mistake_says_how_far_a_path_goes(
    tmp_path: Path, name: str, path: str, says: str
) -> None:
    file = written(tmp_path, name)
    for asked in (
        Request(1, 0, columns=Columns(prompt=path, target="edit.new.str")),
        Request(1, 0, columns=Columns(target="edit.new.str"), template=f"{{{path}}}?"),
    ):
        with pytest.raises(UserError) as raised:
            examples_of(file, asked)
        told = f"'{path}' {says if says.startswith('is not') else 'is ' + says}"
        if says == "has no column":
            told = f"{file} {says} '{path}'; it has edit, answers, year"
        assert told in str(raised.value)
        named = "columns.prompt" in str(raised.value)
        assert named is (asked.template is None and "missing" in says)


def test_a_name_with_a_space_beside_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt, target\nq, a\n")
    with pytest.raises(UserError, match="' target'; remove the space beside ' target'"):
        examples_of(str(tmp_path / "x.csv"), Request(1, 0))


def test_the_command_takes_them_all(tmp_path: Path) -> None:
    options: list[Any] = ["--prompt", "edit.text", "--target", "edit.new.str"]
    options += ["--aliases", "answers", "--subject", "edit.who", "--limit", "1", "--full"]
    found = CliRunner().invoke(main, ["data", "show", written(tmp_path, "x.json"), *options])
    assert found.exit_code == 0, found.output
    assert "Ona Reed was born in" in found.output
    assert "also right: LUND" in found.output
