"""All examples of a small source, whatever split they are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.data.example import Example
from geomix.data.sources import hub
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.data.split import SPLITS


def all_examples(name: str, path: Path, **keys: Any) -> dict[str, Example]:
    """By prompt, over the splits; fails where two of them share a prompt."""
    found: dict[str, Example] = {}
    for split in SPLITS:
        request = Request(count=10**6, seed=0, split=split, path=str(path), **keys)
        for example in examples_of(name, request, "fewer"):
            assert example.prompt not in found
            found[example.prompt] = example
    return found


@pytest.fixture
def everything() -> Callable[..., dict[str, Example]]:
    """`all_examples`, for the tests of each source."""
    return all_examples


@pytest.fixture(autouse=True)
def reachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests stand in for `datasets.load_dataset`; nothing asks the real hub before it."""
    monkeypatch.setattr(hub, "_ask_once", lambda _: None)
