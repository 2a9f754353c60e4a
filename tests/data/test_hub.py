"""Datasets of the hub, without a network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pytest
from huggingface_hub.errors import HfHubHTTPError
from pyarrow import parquet

from geomix.config.data import Columns
from geomix.data.example import Example
from geomix.data.sources import hub
from geomix.data.sources.base import Hub, Request
from geomix.data.sources.hub import hub_rows
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

ask_once = hub._ask_once  # before a fixture replaces it


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
    converted = Hub(str(tmp_path), "trex", revision="refs/convert/parquet", streaming=True)
    found = list(hub_rows("lama", converted))
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


@pytest.mark.parametrize(
    ("answer", "cached", "asks"),
    [
        (ConnectionError("no network"), "", False),
        (ConnectionError("no network"), "owner___big_set", True),
        (TimeoutError("no answer"), "owner___other", False),
        (HfHubHTTPError.__new__(HfHubHTTPError), "", True),
        (None, "", True),
    ],
)
def test_a_hub_out_of_reach_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answer: Exception | None,
    cached: str,
    asks: bool,
) -> None:
    """`datasets` alone would try for half a minute; what it has cached, it may still give."""

    def dataset_info(name: str, timeout: float) -> None:
        assert name == "owner/BigSet"
        assert timeout <= 30
        if answer is not None:
            raise answer

    asked = []

    def load_dataset(name: str, *_: Any, **__: Any) -> list[dict[str, str]]:
        asked.append(name)
        return [{"prompt": "q", "target": "a"}]

    monkeypatch.setattr(hub, "_ask_once", ask_once)
    api = SimpleNamespace(dataset_info=dataset_info)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    (tmp_path / cached).mkdir(exist_ok=True)
    if asks:
        assert examples_of("owner/BigSet", Request(1, 0)) == [Example("q", "a")]
    else:
        with pytest.raises(UserError, match=r"reached \(no (network|answer)\); download it from"):
            examples_of("owner/BigSet", Request(1, 0))
    assert asked == ["owner/BigSet"] * asks
