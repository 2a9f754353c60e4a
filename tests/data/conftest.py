"""All examples of a small source, whatever split they are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.data.example import Example
from geomix.data.registry import examples_of
from geomix.data.source import Request
from geomix.data.split import SPLITS, Split
from geomix.errors import UserError


def all_examples(name: str, path: Path, **keys: Any) -> dict[str, Example]:
    """By prompt, over the splits; fails where two of them share a prompt."""
    found: dict[str, Example] = {}
    for split in SPLITS:
        for example in _of_split(name, path, split, **keys):
            assert example.prompt not in found
            found[example.prompt] = example
    return found


def _of_split(name: str, path: Path, split: Split, **keys: Any) -> list[Example]:
    """The message of a request for too many says how many there are."""
    request = Request(count=10**6, seed=0, split=split, path=str(path), **keys)
    if split == "held-out":
        return examples_of(name, request)
    with pytest.raises(UserError, match="1000000 asked for") as raised:
        examples_of(name, request)
    number = int(str(raised.value).split(" examples found")[0].split()[-1])
    fitting = Request(count=number, seed=0, split=split, path=str(path), **keys)
    return examples_of(name, fitting) if number else []


@pytest.fixture
def everything() -> Callable[..., dict[str, Example]]:
    """`all_examples`, for the tests of each source."""
    return all_examples
