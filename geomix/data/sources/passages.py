"""Passages cut in two: the paper's generic mixing data.

Source: appendix B. The first `words` words of a passage are the prompt, the next ones the target;
shorter passages are dropped; at most the first 20,000 rows of a dataset are read. Words are
separated by white space, and joined by single spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomix.data.example import Example
from geomix.data.sources.base import Found, Hub, Loader, Request, Source
from geomix.data.sources.published import read
from geomix.data.sources.rows import text_in

PROMPT = "Complete the following partial passage: {passage}"
"""The paper's prompt (appendix B)."""

FROM = "the paper, appendix B"
FORMATS = "JSONL or Parquet with a column text"
STREAMED = "streamed: at most the first 20,000 rows are read, and no more than are needed"


def completion(text: str, words: int) -> Example | None:
    """Turn a passage's first `words` words into a prompt, the next `words` into its target.

    None if the passage is shorter than both.

    Raises:
        RowError: the text is empty or holds a lone surrogate.
    """
    found = text_in({"text": text}, "text").split(maxsplit=2 * words)[: 2 * words]
    if len(found) < 2 * words:
        return None
    return Example(PROMPT.format(passage=" ".join(found[:words])), " ".join(found[words:]))


def _passages(*keys: str) -> Loader:
    """Return the loader of a dataset with passages in the first of these columns that a row has."""

    def load(source: Source, request: Request) -> Found:
        def convert(row: Mapping[str, Any]) -> Example | None:
            key = next((key for key in keys if key in row), keys[0])
            if row.get(key) == "":
                return None  # an empty passage is a short one
            return completion(text_in(row, key), request.words)

        return read(source, request, convert, ("*.jsonl", "*.parquet", "*.json"))

    return load


KPILE = Source(
    name="kpile",
    kind="mixing",
    loader=_passages("text"),
    licence="see its card",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=Hub("Query-of-CC/Knowledge_Pile", streaming=True),
    upstream=FORMATS,
    note=f"Knowledge Pile; {STREAMED}",
)

ARXIV = Source(
    name="arxiv",
    kind="mixing",
    loader=_passages("text", "article"),
    licence="each paper's",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=Hub("ccdv/arxiv-summarization", "document", streaming=True),
    upstream=f"{FORMATS} (the Pile's) or article",
    note="the paper's ArXiv part of the Pile was taken down: the hub's papers (ccdv) stand in; "
    f"{STREAMED}",
)

FINEWEB = Source(
    name="fineweb",
    kind="mixing",
    loader=_passages("text"),
    licence="ODC-By 1.0",
    prompt=PROMPT,
    prompt_from=FROM,
    hub=Hub("HuggingFaceFW/fineweb", "sample-10BT", streaming=True),
    upstream=FORMATS,
    note=STREAMED,
)
