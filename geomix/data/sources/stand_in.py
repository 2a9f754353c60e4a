"""Placeholders for data that cannot be reached, so that a dry run can still count.

They have the requested number and length, not the texts. A passage is as long as `words` says. A
factoid takes `FACTOID` words, longer than nearly all in the published sets. Only `max_tokens`
limits any other example, so it takes about as many.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from geomix.data.example import Example
from geomix.data.sources.base import Found, Request, Source
from geomix.data.sources.random_words import passage
from geomix.data.sources.rows import SHARES
from geomix.util.errors import Unreachable, UserError

FACTOID = (28, 4)
"""Words of the prompt and of the target."""

TOKENS_A_WORD = 3
"""Most tokens of a generated word, so that no example is longer than `max_tokens`."""


@dataclass(slots=True)
class StandIns:
    """Placeholders for unreachable data within a block of `standing_in`.

    Attributes:
        tokens: most tokens of an example, `max_tokens`.
        why: by source, why its own examples cannot be reached.
    """

    tokens: int
    why: dict[str, str] = field(default_factory=dict)
    _absent: set[tuple[str, str]] = field(default_factory=set)

    def knows(self, source: str, request: Request) -> bool:
        """Return whether the requested data was found to be unreachable before."""
        return request.path is None and (source, request.vocabulary) in self._absent

    def note(self, source: str, request: Request, error: Unreachable) -> None:
        """Record why the requested data cannot be reached."""
        self.why.setdefault(source, str(error))
        self._absent.add((source, request.vocabulary))

    def found(self, source: str, known: Source | None, request: Request) -> Found:
        """Return as many placeholders as requested, different ones for another seed or split.

        Raises:
            UserError: all are requested, and their number is unknown here.
        """
        drawn = f"{source} {request.subset} {request.split} {request.seed}"
        rng = np.random.default_rng(zlib.crc32(drawn.encode()))
        prompt, target = self._words(known, request)
        start = known.prompt.split("{", 1)[0] if known else ""
        examples = [
            Example(start + passage(rng, prompt), passage(rng, target))
            for _ in range(self._count(source, known, request))
        ]
        return Found(examples, f"data source '{source}'")

    def _count(self, source: str, known: Source | None, request: Request) -> int:
        if not request.every:
            return request.count
        if known is None or known.rows is None:
            raise UserError(f"{self.why[source]}; or give a limit: how many it has is not known")
        return known.rows * SHARES[request.split] // sum(SHARES.values())

    def _words(self, known: Source | None, request: Request) -> tuple[int, int]:
        if known and known.kind == "mixing":
            return request.words, request.words
        half = max(1, self.tokens // (2 * TOKENS_A_WORD))
        return (
            (min(FACTOID[0], half), FACTOID[1])
            if known and known.kind == "factoid"
            else (half,) * 2
        )


_now: ContextVar[StandIns | None] = ContextVar("_now", default=None)


@contextmanager
def standing_in(tokens: int) -> Iterator[StandIns]:
    """Replace unreachable data by placeholders within the block.

    Args:
        tokens: most tokens of an example.
    """
    held = StandIns(tokens)
    token = _now.set(held)
    try:
        yield held
    finally:
        _now.reset(token)


def stand_ins() -> StandIns | None:
    """Return the enclosing block's placeholders, or None: unreachable data is then an error."""
    return _now.get()
