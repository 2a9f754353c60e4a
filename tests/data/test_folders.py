"""Folders of data as the field keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from pyarrow import parquet

from geomix.data.example import Example
from geomix.data.files.folder import folder_rows
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError


def facts(*names: str) -> list[dict[str, str]]:
    return [{"prompt": f"Where is {name}?", "target": name} for name in names]


def targets(folder: Path, subset: str | None = None) -> list[str]:
    request = Request(9, 0, subset=subset)
    return [example.target for example in examples_of(str(folder), request, "fewer")]


def shard(file: Path, *names: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(facts(*names)), file)


def test_a_saved_dataset_in_one_file_or_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Dataset.from_list(facts("a", "b", "c"))
    saved.save_to_disk(str(tmp_path / "one"))
    saved.save_to_disk(str(tmp_path / "more"), num_shards=3)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "one", tmp_path / "more", Path("one"), Path("one/")):
        assert targets(folder) == ["a", "b", "c"]


def test_splits_are_chosen_by_name(tmp_path: Path) -> None:
    DatasetDict(
        {"train": Dataset.from_list(facts("a")), "test": Dataset.from_list(facts("b"))}
    ).save_to_disk(str(tmp_path / "parts"))
    assert targets(tmp_path / "parts", ":test") == ["b"]
    for subset, says in ((None, "choose one"), (":dev", "no part ':dev'")):
        with pytest.raises(UserError, match=says) as raised:
            targets(tmp_path / "parts", subset)
        assert "':train', ':test'" in str(raised.value)
    DatasetDict({"only": Dataset.from_list(facts("c"))}).save_to_disk(str(tmp_path / "one"))
    assert targets(tmp_path / "one") == ["c"]


def test_shards_and_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        shard(tmp_path / f"x/data/train-0000{number}-of-00002.parquet", name)
    (tmp_path / "x/README.md").write_text("a card")
    assert targets(tmp_path / "x") == ["a", "b"]
    shard(tmp_path / "x/data/test-00000-of-00001.parquet", "c")
    assert targets(tmp_path / "x", ":test") == ["c"]
    for config in ("trex", "squad"):
        for split in ("train", "test"):
            shard(tmp_path / "y" / config / split / "0000.parquet", f"{config} {split}")
    assert targets(tmp_path / "y", "squad:train") == ["squad train"]
    with pytest.raises(UserError, match="4 parts; choose one with subset: 'squad:test', 'squad:"):
        targets(tmp_path / "y")
    lines = [json.dumps(fact) for fact in facts("d", "e")]
    for number, line in enumerate(lines):
        (tmp_path / "z").mkdir(exist_ok=True)
        (tmp_path / f"z/part-0000{number}.jsonl").write_text(line)
    assert targets(tmp_path / "z") == ["d", "e"]


def test_a_saved_copy_of_a_published_set_is_read_with_path(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{n}", "possible_answers": '["a"]', "subj": "s", "obj": "a"}
        for n in range(30)
    ]
    DatasetDict({"test": Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "popqa"))
    (found,) = examples_of("popqa", Request(1, 0, path=str(tmp_path / "popqa")))
    assert found.target == "a"


BROKEN = {
    "no state": ("{}", "state.json that names no data files"),
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "not a JSON object"),
    "outside": ('{"_data_files": [{"filename": "../x.arrow"}]}', "names no data files"),
    "absolute": ('{"_data_files": [{"filename": "/etc/passwd"}]}', "names no data files"),
    "gone": ('{"_data_files": [{"filename": "x.arrow"}]}', "though state.json lists it"),
    "no Arrow": ('{"_data_files": [{"filename": "state.json"}]}', "names no data files"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_says_odd_things_is_one_line(tmp_path: Path, case: str) -> None:
    text, says = BROKEN[case]
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=says) as raised:
        list(folder_rows(tmp_path))
    assert len(raised.value.lines) == 1


def test_a_cut_or_foreign_arrow_file_is_one_line(tmp_path: Path) -> None:
    Dataset.from_list(facts("a", "b")).save_to_disk(str(tmp_path / "x"))
    (file,) = (tmp_path / "x").glob("*.arrow")
    whole = file.read_bytes()
    assert examples_of(str(file), Request(1, 0)) == [Example("Where is a?", "a")]
    for content in (whole[: len(whole) // 2], b"", b"not Arrow at all", whole[:8]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"\.arrow: cannot be read as Arrow"):
            examples_of(str(tmp_path / "x"), Request(2, 0))
