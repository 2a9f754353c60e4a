"""Datasets of the hub, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from geomix.config_data import Columns
from geomix.data.example import Example
from geomix.data.hub import hub_rows
from geomix.data.registry import examples_of
from geomix.data.source import Hub, Request
from geomix.errors import UserError


def test_rows_are_read_in_order_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: str, **keys: Any) -> list[dict[str, str]]:
        asked.append((names, keys))
        return [{"q": f"q{n}", "a": f"a{n}"} for n in range(3)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    request = Request(count=2, seed=0, subset="main:test", columns=Columns(prompt="q", target="a"))
    assert examples_of("owner/set", request) == [Example("q0", "a0"), Example("q1", "a1")]
    ((names, keys),) = asked
    assert names == ("owner/set", "main")
    assert keys == {"data_files": None, "split": "test", "revision": None, "streaming": True}


def test_a_parquet_conversion_is_read_by_its_folders(tmp_path: Path) -> None:
    """Real `datasets`, on a folder laid out as the branch refs/convert/parquet is."""
    for config in ("trex", "squad"):
        for split in ("train", "test"):
            folder = tmp_path / config / split
            folder.mkdir(parents=True)
            table = pyarrow.table({"x": [f"{config} {split} {n}" for n in range(2)]})
            parquet.write_table(table, folder / "0000.parquet")
    (tmp_path / "README.md").write_text("a card\n")
    hub = Hub(str(tmp_path), "trex", revision="refs/convert/parquet", streaming=True)
    found = list(hub_rows("lama", hub))
    assert [row for _, row in found] == [{"x": "trex train 0"}, {"x": "trex train 1"}]


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: str, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as raised:
        examples_of("owner/set", Request(count=1, seed=0))
    (line,) = raised.value.lines
    assert line == (
        "data source 'owner/set': owner/set, train: Couldn't reach the Hub; download it from "
        "https://huggingface.co/datasets/owner/set, then give a file as source:"
    )
