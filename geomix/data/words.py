"""Random-word passages from a word list that code generates: the paper's mixing source, offline."""

from __future__ import annotations

from functools import cache
from hashlib import blake2s
from itertools import product

import numpy as np

from geomix.data.example import Example
from geomix.data.source import Source

PROMPT = "Memorize the following random-string passage:\n{passage}"
"""The paper's prompt (appendix B); the target is the passage itself."""

WORDS = 3000
"""How many words the list holds."""

_ONSETS = (
    *("b", "br", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "l"),
    *("m", "n", "p", "pl", "r", "s", "sh", "st", "t", "tr", "v", "z"),
)
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("l", "m", "n", "r", "s", "t", "x")
_TAILS = 150


def _shuffled(items: list[str]) -> list[str]:
    # A hash orders alike on every platform and version, which no random generator promises.
    return sorted(items, key=lambda item: blake2s(item.encode()).digest())


@cache
def syllables() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The open syllables that words start with (120) and the closed ones that they end in (150)."""
    heads = tuple("".join(parts) for parts in product(_ONSETS, _VOWELS))
    tails = _shuffled(["".join(parts) for parts in product(_ONSETS, _VOWELS, _CODAS)])[:_TAILS]
    return heads, tuple(tails)


@cache
def word_list() -> tuple[str, ...]:
    """`WORDS` distinct lower-case pronounceable words, the same ones in every process.

    Each is an open syllable and a closed one ("brenol"), from so few of either that a small
    vocabulary has a token for most of them and a word is about two tokens.
    """
    heads, tails = syllables()
    return tuple(_shuffled([head + tail for head in heads for tail in tails])[:WORDS])


def passage(rng: np.random.Generator, words: int) -> str:
    """`words` words drawn uniformly and independently from the list, joined by single spaces.

    Args:
        rng: source of the draws.
        words: how many words, at least 1.

    Raises:
        ValueError: `words` is below 1.
    """
    if words < 1:
        raise ValueError(f"a passage needs at least 1 word, not {words}")
    listed = word_list()
    return " ".join(listed[i] for i in rng.integers(len(listed), size=words))


def examples(count: int, words: int, seed: int) -> list[Example]:
    """`count` passages of `words` words as the paper's memorisation examples.

    The first examples of a longer list are those of a shorter one with the same seed.

    Args:
        count: how many examples, 0 or more.
        words: words a passage, at least 1.
        seed: another seed, other passages; 0 or more.

    Raises:
        ValueError: a negative `count` or `seed`, or `words` below 1.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must be 0 or more, not {count} and {seed}")
    if words < 1:
        raise ValueError(f"a passage needs at least 1 word, not {words}")
    rng = np.random.default_rng(seed)
    texts = (passage(rng, words) for _ in range(count))
    return [Example(prompt=PROMPT.format(passage=text), target=text) for text in texts]


SOURCE = Source(
    name="random-words",
    kind="mixing",
    load=lambda request: examples(request.count, request.words, request.seed),
    licence="none needed",
    prompt=PROMPT,
    prompt_from="the paper, appendix B",
)
