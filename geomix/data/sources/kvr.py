"""Key-Value Recall: random keys with random values, the paper's purest factoid."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator

import numpy as np

from geomix.data.example import Example
from geomix.data.sources.base import Source, generated
from geomix.data.split import Split, split_of

ALPHABET = string.ascii_lowercase + string.digits
LENGTH = 8

ENTROPY = LENGTH * math.log2(len(ALPHABET))
"""Bits of a value; that no two values of a set are equal takes nothing worth counting."""

_BLOCK = 1_000
"""Pairs drawn at once; the stream does not depend on it."""


def examples(count: int, seed: int, split: Split) -> list[Example]:
    """Draw unique keys with unique values, each 8 characters of lower-case letters and digits.

    The splits of a seed share no key and no value. A larger `count` begins with the smaller one's
    examples.

    Args:
        count: number of pairs.
        seed: seed of the generator.
        split: which of the disjoint splits.
    """
    rng = np.random.default_rng([seed, 0x4B5652])
    found: list[Example] = []
    keys: set[str] = set()
    values: set[str] = set()  # of every split: all are cut from one stream of pairs
    pairs = _pairs(rng)
    while len(found) < count:
        key, value = next(pairs)
        if key in keys or value in values:
            continue
        keys.add(key)
        values.add(value)
        if split_of(key) == split:
            prompt = f"The value of key {key} is?"
            found.append(Example(prompt, value, subject=key, entropy=ENTROPY))
    return found


def _pairs(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yield random keys with random values, without end."""
    letters = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)
    while True:
        drawn = letters[rng.integers(0, len(letters), (_BLOCK, 2 * LENGTH))].tobytes().decode()
        for start in range(0, len(drawn), 2 * LENGTH):
            middle = start + LENGTH
            yield drawn[start:middle], drawn[middle : middle + LENGTH]


SOURCE = Source(
    name="kvr",
    kind="factoid",
    loader=generated(examples),
    licence="none needed",
    prompt="The value of key {key} is?",
    prompt_from="the paper, appendix B",
)
