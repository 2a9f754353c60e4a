"""Lines of Markdown: tables, and the anchors of headings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

Line = Iterator[str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Line:
    """Yield a table; nothing if it has no row."""
    rows = list(rows)
    if not rows:
        return
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell(value) for value in row) + " |"


def cell(text: str) -> str:
    """Return a text as a table's cell may hold it: in one line, with | escaped."""
    return re.sub(r"(?<!\\)\|", r"\\|", re.sub(r"\s+", " ", text)).strip()


def plain(text: str) -> str:
    """Return a text as inline code may hold it."""
    return text.replace("`", "'").replace("\n", "⏎")


def anchor(title: str) -> str:
    """Return a heading's anchor as GitHub and mkdocs name it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
