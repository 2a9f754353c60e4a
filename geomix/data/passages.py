"""Passages that are cut in two: the paper's generic mixing data.

Source: appendix B. The first `words` words of a passage are the prompt, the next ones the target;
shorter passages are dropped; of a dataset the first 20,000 rows are read at most. Words are what
white space separates, joined by single spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomix.data.example import Example
from geomix.data.rows import POOL, Convert, by_share, text_in
from geomix.data.source import Hub, Request, Source
from geomix.data.upstream import origin_of, upstream_rows

PROMPT = "Complete the following partial passage: {passage}"
"""The paper's prompt (appendix B)."""

FROM = "the paper, appendix B"
FORMATS = "JSONL or Parquet with a column text"
STREAMED = "streamed: at most the first 20,000 rows are read, and no more than are needed"

_KPILE = Hub("Query-of-CC/Knowledge_Pile", streaming=True)
_ARXIV = Hub("ccdv/arxiv-summarization", "document", streaming=True)
_FINEWEB = Hub("HuggingFaceFW/fineweb", "sample-10BT", streaming=True)


def completion(text: str, words: int) -> Example | None:
    """The first `words` words of a passage → the next `words`; None where it is shorter than both.

    Raises:
        RowError: the text is empty or holds half a character.
    """
    found = text_in({"text": text}, "text").split(maxsplit=2 * words)[: 2 * words]
    if len(found) < 2 * words:
        return None
    return Example(PROMPT.format(passage=" ".join(found[:words])), " ".join(found[words:]))


def _completions(request: Request, *keys: str) -> Convert:
    def convert(row: Mapping[str, Any]) -> Example | None:
        key = next((key for key in keys if key in row), keys[0])
        if row.get(key) == "":
            return None  # an empty passage is a short one
        return completion(text_in(row, key), request.words)

    return convert


def _streamed(name: str, hub: Hub, request: Request, *keys: str) -> list[Example]:
    patterns = ("*.jsonl", "*.parquet", "*.json")
    rows = upstream_rows(name, request, hub, "", patterns)
    convert = _completions(request, *keys)
    return by_share(origin_of(name, request), rows, convert, request, POOL)


KPILE = Source(
    name="kpile",
    kind="mixing",
    load=lambda request: _streamed("kpile", _KPILE, request, "text"),
    licence="see its card",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=_KPILE,
    upstream=FORMATS,
    note=f"Knowledge Pile; {STREAMED}",
)

ARXIV = Source(
    name="arxiv",
    kind="mixing",
    load=lambda request: _streamed("arxiv", _ARXIV, request, "text", "article"),
    licence="each paper's",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=_ARXIV,
    upstream=f"{FORMATS} (the Pile's) or article",
    note="the paper's ArXiv part of the Pile was taken down: the hub's papers (ccdv) stand in; "
    f"{STREAMED}",
)

FINEWEB = Source(
    name="fineweb",
    kind="mixing",
    load=lambda request: _streamed("fineweb", _FINEWEB, request, "text"),
    licence="ODC-By 1.0",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=_FINEWEB,
    upstream=FORMATS,
    note=STREAMED,
)
