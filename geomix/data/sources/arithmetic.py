"""Sums and differences of whole numbers: an offline set that is not factoids."""

from __future__ import annotations

import numpy as np

from geomix.data.example import Example
from geomix.data.sources.base import Source, generated
from geomix.data.split import Split, split_of

LARGEST = 999
"""Largest operand, from 0: a million questions for each sign."""

MOST = (LARGEST + 1) ** 2 // len("+-") // 2
"""Most examples of a split of one seed: under half of its questions, so that a draw seldom
repeats."""


def examples(count: int, seed: int, split: Split) -> list[Example]:
    """Draw distinct questions such as `What is 412 + 87?` with the target `499`.

    Args:
        count: how many; at most `MOST` are drawn.
        seed: seed of the generator.
        split: which of the disjoint splits; a question is in one split under every seed.
    """
    rng = np.random.default_rng([seed, 0x415249])
    found: dict[str, str] = {}
    while len(found) < min(count, MOST):
        a, b = (int(n) for n in rng.integers(0, LARGEST + 1, 2))
        sign = "+-"[int(rng.integers(2))]
        question = f"What is {a} {sign} {b}?"
        if split_of(question) == split:
            found[question] = str(a + b if sign == "+" else a - b)
    return [Example(question, answer, entropy=0.0) for question, answer in found.items()]


SOURCE = Source(
    name="arithmetic",
    kind="non-factoid",
    loader=generated(examples, among=f" (a split has at most {MOST:,})"),
    licence="none needed",
    prompt="What is {a} + {b}?",
    prompt_from="geomix",
    rows=2 * (LARGEST + 1) ** 2,
)
