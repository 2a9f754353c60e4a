"""Sums and differences of whole numbers: an offline set that is not about facts."""

from __future__ import annotations

import numpy as np

from geomix.data.example import Example
from geomix.data.source import Source, generated
from geomix.data.split import Split, split_of

LARGEST = 999
"""Operands run from 0 to this number: a million questions for each sign."""


def examples(count: int, seed: int, split: Split) -> list[Example]:
    """Distinct questions such as `What is 412 + 87?` with the target `499`.

    Args:
        count: how many; the world holds about 600,000 in each split.
        seed: seed of the generator.
        split: which of the disjoint splits; a question is in one split under every seed.

    Raises:
        ValueError: more questions are asked for than half of a split holds.
    """
    most = (LARGEST + 1) ** 2 // len("+-") // 2
    if count > most:
        raise ValueError(f"arithmetic holds at most {most} examples a split, {count} asked for")
    rng = np.random.default_rng([seed, 0x415249])
    found: dict[str, str] = {}
    while len(found) < count:
        a, b = (int(n) for n in rng.integers(0, LARGEST + 1, 2))
        sign = "+-"[int(rng.integers(2))]
        question = f"What is {a} {sign} {b}?"
        if split_of(question) == split:
            found[question] = str(a + b if sign == "+" else a - b)
    return [Example(question, answer) for question, answer in found.items()]


SOURCE = Source(
    name="arithmetic",
    kind="non-factoid",
    loader=generated(examples),
    licence="none needed",
    prompt="What is {a} + {b}?",
    prompt_from="geomix",
    rows=2 * (LARGEST + 1) ** 2,
)
