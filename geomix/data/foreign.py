"""Foreign tokenizers: tried in a child process before this process uses them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from geomix.data.bounded import answers
from geomix.util.errors import UserError, one_line

_TEXTS, _CHARACTERS = 20, 5_000
"""Number of texts to try, and most characters of each."""

_trusted: WeakSet[Any] = WeakSet()
_tried: dict[str, WeakSet[Any]] = {}
_digests: set[tuple[str, bytes]] = set()


def trust(tokenizer: Any) -> None:
    """Exempt a tokenizer of geomix's own from the trial."""
    _trusted.add(tokenizer)


def where_of(tokenizer: Any) -> str:
    """Name a tokenizer in a message."""
    return f"model '{tokenizer.name_or_path}': its tokenizer"


def check_tokenizer(tokenizer: Any, texts: Sequence[str], when: str = "examples") -> None:
    """Try a tokenizer on the first texts that it meets, within limits of time and memory.

    This finds regular expressions that backtrack without end, replacements that grow without end
    and panics: nothing else can interrupt the library. A failure on a later text still ends in one
    line, but is not bounded in time.

    Args:
        tokenizer: a fast tokenizer of transformers.
        texts: a test text when it is loaded, or examples in their format.
        when: which of the two; each is tried once in a process.

    Raises:
        UserError: it fails, or takes too much.
    """
    tried = _tried.setdefault(when, WeakSet())
    if tokenizer in _trusted or tokenizer in tried or not texts:
        return
    tried.add(tokenizer)
    where = where_of(tokenizer)
    with one_line(where):
        description = tokenizer.backend_tokenizer.to_str()
    digest = (when, hashlib.sha256(description.encode()).digest())
    if digest in _digests:
        return
    first = [text[:_CHARACTERS] for text in texts[:_TEXTS]]
    found, why = answers("encode", {"tokenizer": description, "texts": first}, len(first))
    if why:
        raise UserError(f"{where}: fails on {first[len(found)]!r:.60}: {why}")
    _digests.add(digest)
