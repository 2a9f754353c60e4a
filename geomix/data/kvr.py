"""Key-Value Recall: random keys with random values, the paper's purest factoid."""

from __future__ import annotations

import string

import numpy as np

from geomix.data.example import Example
from geomix.data.source import Source, generated
from geomix.data.split import Split, split_of

ALPHABET = string.ascii_lowercase + string.digits
LENGTH = 8


def examples(count: int, seed: int, split: Split) -> list[Example]:
    """Unique keys with unique values, 8 characters of lower-case letters and digits each.

    The splits of a seed share no key and no value. A larger `count` begins with the smaller one's
    examples.

    Args:
        count: how many pairs.
        seed: seed of the generator.
        split: which of the disjoint splits.
    """
    rng = np.random.default_rng([seed, 0x4B5652])
    found: list[Example] = []
    keys: set[str] = set()
    values: set[str] = set()  # of every split: all of them are cut from one stream of pairs
    while len(found) < count:
        key, value = ("".join(rng.choice(list(ALPHABET), LENGTH)) for _ in range(2))
        if key in keys or value in values:
            continue
        keys.add(key)
        values.add(value)
        if split_of(key) == split:
            found.append(Example(f"The value of key {key} is?", value, subject=key))
    return found


SOURCE = Source(
    name="kvr",
    kind="factoid",
    loader=generated(examples),
    licence="none needed",
    prompt="The value of key {key} is?",
    prompt_from="the paper, appendix B",
)
