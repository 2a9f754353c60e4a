"""Every source of examples by the name that a configuration gives it: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geomix.data import arithmetic, jsonl, kvr, triples, words
from geomix.data.example import Example
from geomix.data.split import Split
from geomix.errors import UserError


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a source.

    Attributes:
        count: how many examples.
        seed: seed of a generated source.
        split: which of the disjoint splits.
        words: length of a passage in words, for sources of passages.
    """

    count: int
    seed: int
    split: Split = "train"
    words: int = 50


SOURCES: dict[str, Callable[[Request], list[Example]]] = {
    "kvr": lambda r: kvr.examples(r.count, r.seed, r.split),
    "triples": lambda r: triples.examples(r.count, r.seed, r.split),
    "arithmetic": lambda r: arithmetic.examples(r.count, r.seed, r.split),
    "random-words": lambda r: words.examples(r.count, r.words, r.seed),
}


def examples_of(source: str, request: Request) -> list[Example]:
    """The examples of a named source or of a `.jsonl` file.

    Raises:
        UserError: the source cannot give what is asked of it.
    """
    if source.endswith(".jsonl"):
        return jsonl.examples(Path(source), request.count, request.split)
    try:
        return SOURCES[source](request)
    except ValueError as error:
        raise UserError(f"data source '{source}': {error}") from None
