"""LAMA's four sets: rows made up here in its format, and its own where a copy is at hand."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.data.example import Example
from geomix.data.sources.base import Request
from geomix.data.sources.lama import lama_row
from geomix.data.sources.rows import RowError
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

TEMPLATES = {"P1": "[X] lies in [Y] .", "P19": "[X] was born in [Y] ."}


def prompt(sentence: str) -> str:
    return f"Fill in the blank: {sentence} The answer is:"


def taken(path: Path, subset: str, count: int) -> list[Example]:
    return examples_of("lama", Request(count, 0, path=str(path), subset=subset))


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "sentence", "aliases", "subject"),
    [
        (
            {"predicate_id": "P1", "sub_label": "A [Y]", "obj_label": "o", "evidences": []},
            "A [Y] lies in ____ .",
            ("o",),
            "A [Y]",
        ),
        (
            {"predicate_id": "P1", "sub_label": "A", "obj_label": "o", "template": "[Y] has [X] ."},
            "____ has A .",
            ("o",),
            "A",
        ),
        (
            {
                "pred": "/people/person/place_of_birth",
                "sub_label": "A",
                "obj_label": "o",
                "obj_aliases": ["p", "o"],
                "masked_sentences": ["A [MASK]"],
            },
            "A was born in ____ .",
            ("o", "p"),
            "A",
        ),
        (
            {"pred": "/people/person/date_of_birth", "sub_label": "A", "obj_label": "o"},
            "A (born ____).",
            ("o",),
            "A",
        ),
        (
            {"pred": "HasSubevent", "masked_sentences": ["To be [MASK]."], "obj_label": "o"},
            "To be ____.",
            ("o",),
            "",
        ),
        (
            {"masked_sentence": "It [MASK].", "obj_label": "o", "sub_label": "Squad"},
            "It ____.",
            ("o",),
            "",
        ),
    ],
)
def test_rows_of_every_set(
    row: dict[str, Any], sentence: str, aliases: tuple[str, ...], subject: str
) -> None:
    assert lama_row(row, TEMPLATES) == Example(prompt(sentence), "o", aliases, subject=subject)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"predicate_id": "P2", "sub_label": "A", "obj_label": "o"}, "no template of 'P2'"),
        ({"predicate_id": "P1", "obj_label": "o"}, "'sub_label' is missing"),
        ({"masked_sentences": [], "obj_label": "o"}, "no sentence with a"),
        ({"obj_label": "o", "sub_label": "A", "template": "[X]"}, "lacks"),
    ],
)
def test_rows_without_a_sentence_are_refused(row: dict[str, Any], says: str) -> None:
    with pytest.raises(RowError, match=says):
        lama_row(row, TEMPLATES)


def test_a_folder_in_lamas_own_layout(tmp_path: Path) -> None:
    facts = [{"predicate_id": "P1", "sub_label": f"A{n}", "obj_label": "o"} for n in range(20)]
    write(tmp_path, "data/TREx/P1.jsonl", *facts)
    blank = {"masked_sentences": ["A [MASK]"], "obj_label": "b"}
    write(tmp_path, "data/Squad/test.jsonl", *[blank] * 3)
    with pytest.raises(UserError, match=r"relations\.jsonl \(the templates\) is not beside it"):
        taken(tmp_path, "trex", 1)
    write(tmp_path, "data/relations.jsonl", {"relation": "P1", "template": "[X] is [Y] ."})
    for path in (tmp_path, tmp_path / "data", tmp_path / "data/TREx/P1.jsonl"):
        assert {e.target for e in taken(path, "trex", 5)} == {"o"}
    assert taken(tmp_path, "squad", 1) == [Example(prompt("A ____"), "b", ("b",))]
    with pytest.raises(UserError, match=r"no file ConceptNet/test\.jsonl or ConceptNet\*\.parquet"):
        taken(tmp_path, "conceptnet", 1)


def test_samples(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lama"
    with tarfile.open(folder / "TREx_first200_each.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    relations = (folder / "relations.jsonl").read_bytes()
    (tmp_path / "data" / "relations.jsonl").write_bytes(relations)
    found = {e.prompt: e for e in taken(tmp_path, "trex", 3000)}
    assert len(found) == 3000
    turing = prompt("Alan Turing works in the field of ____ .")
    assert found[turing] == Example(turing, "logic", ("logic",), subject="Alan Turing")
    found = {e.prompt: e for e in taken(folder / "Squad_test.jsonl", "squad", 150)}
    assert len(found) == 150
    first = prompt("To emphasize the 50th anniversary of the Super Bowl the ____ color was used.")
    assert found.get(first, Example(first, "gold", ("gold",))).target == "gold"


@pytest.mark.parametrize(
    ("name", "sentence", "target"),
    [
        ("google_re", "Khatchig Mouradian was born in ____ .", "Lebanon"),
        (
            "conceptnet",
            "One of the things you do when you are alive is ____.",
            "think",
        ),
        ("trex", "Eibenstock is located in ____ .", "Germany"),
    ],
)
def test_the_native_layout(
    everything: Callable[..., dict[str, Example]],
    shared_data: Path,
    tmp_path: Path,
    name: str,
    sentence: str,
    target: str,
) -> None:
    with zipfile.ZipFile(shared_data / "lama" / f"hf_dummy_{name}.zip") as packed:
        packed.extractall(tmp_path)
    for file in tmp_path.rglob("relations.jsonl"):  # the samples cut it short
        file.write_bytes((shared_data / "lama" / "relations.jsonl").read_bytes())
    found = everything("lama", tmp_path, subset=name)
    assert found[prompt(sentence)].target == target
