"""Bits memorised: the reduction of code length by the model, for facts of known entropy.

An answer y, whose last token is the end token, has the code length ℓ = −Σ_t log2 p(y_t | x, y_<t)
after its prompt x. Its source states H, the bits of an answer given x and all of the generator but
its seed.

    b = H − ℓ                      bits of the fact, at most H
    h = log2((1 + 2^b) / 2)        hedged: half the bet on the model, half on the uniform code; ≥ −1

The answers with their end tokens are a prefix-free code (Kraft: Σ_y p(y) ≤ 1). So for a model that
knows nothing of the answer, whatever it predicts: E 2^b ≤ 1, P(b ≥ t) ≤ 2^−t, E b ≤ 0, E h ≤ 0.
Mean b may lie far below 0 where a few facts are confidently wrong; mean h may not. Both are lower
bounds of the bits memorised: another prompt or spelling can only show more.
"""

from __future__ import annotations

import math
from typing import Any

from geomix.measures.scores.base import Answer, Score


def code_length(token_nll: tuple[float, ...]) -> float:
    """Return the bits of an answer under the model, from the nats of its tokens."""
    return math.fsum(token_nll) / math.log(2)


def hedged(bits: float) -> float:
    """Return log2((1 + 2^bits) / 2), without overflow."""
    high, low = max(bits, 0.0), min(bits, 0.0)
    return high + math.log2((1 + 2.0 ** (low - high)) / 2)


class Bits(Score):
    """Mean bits memorised a fact, H − ℓ, over facts whose source states their entropy H."""

    name = "bits"
    heading = "bits"
    axis = "bits a fact"
    unit = "bits"
    within = True
    column = "bits"
    brings = ("bits_hedged", "bits_end")
    lacking = "only facts of a generator have known bits, such as kvr's and triples'"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return the bits of one fact; None if H is unknown, or 0: the prompt gives the answer."""
        if not answer.entropy:
            return {"entropy": answer.entropy, "bits": None, "bits_hedged": None, "bits_end": None}
        bits = answer.entropy - code_length(answer.token_nll)
        return {
            "entropy": answer.entropy,
            "bits": bits,
            "bits_hedged": hedged(bits),
            "bits_end": code_length(answer.token_nll[-1:]),
        }


class Hedged(Score):
    """Mean bits with half of the bet on a uniform code: −1 or more, at most 0 by chance."""

    name = "bits_hedged"
    heading = "hedged"
    axis = "hedged bits a fact"
    unit = "bits"
    within = True
    column = "bits_hedged"
    part_of = "bits"


class EndBits(Score):
    """Mean bits of the end token; they are part of ℓ, and learnt with the format."""

    name = "bits_end"
    heading = "end bits"
    axis = "bits of the end token"
    unit = "bits"
    larger_is_better = False
    within = True
    column = "bits_end"
    part_of = "bits"
