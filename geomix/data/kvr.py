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

    The splits of a seed share no key. A larger `count` begins with the smaller one's examples.

    Args:
        count: how many pairs.
        seed: seed of the generator.
        split: which of the disjoint splits.
    """
    rng = np.random.default_rng([seed, 0x4B5652])
    pairs: dict[str, str] = {}
    values: set[str] = set()
    while len(pairs) < count:
        key, value = ("".join(rng.choice(list(ALPHABET), LENGTH)) for _ in range(2))
        if split_of(key) == split and key not in pairs and value not in values:
            pairs[key] = value
            values.add(value)
    return [Example(f"The value of key {key} is?", value) for key, value in pairs.items()]


SOURCE = Source(
    name="kvr",
    kind="factoid",
    loader=generated(examples),
    licence="none needed",
    prompt="The value of key {key} is?",
    prompt_from="the paper, appendix B",
)
