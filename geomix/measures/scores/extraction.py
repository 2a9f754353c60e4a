"""Extraction: the part of an answer that must be given, and how often it is sampled.

An answer has L tokens y_1 … y_L and the end token e after them; p_t is the probability of each
given those before it, the true ones. One forward pass gives them.

    strength  1 − k/L; k is the fewest first tokens that must be given so that greedy decoding says
              the others: the last place, counted from 1, whose likeliest token is another one,
              since behind it decoding follows the true tokens
    above ½   the share of tokens with p_t > ½; all of them are sufficient for greedy recall
    p         Π_t p_t, e included: the chance that one sample at temperature 1 is the answer
    n         ln ½ / ln(1 − p): samples that hold the answer with a probability of ½

Strength and tokens leave out e, which is learnt with the format: with it, a model that only ends
its answers would begin above zero. Source of n: arXiv 2410.19482, there (n, p)-extraction.
"""

from __future__ import annotations

import math
from typing import Any

from geomix.measures.scores.base import Answer, Score

SAMPLES = 10**6


def strength(greedy: tuple[bool, ...]) -> float | None:
    """Return the extraction strength of an answer, from its likeliest tokens.

    Args:
        greedy: whether each token is the likeliest, the end token last; that one does not count.

    Returns:
        0 to 1; None for an empty answer.
    """
    misses = [position for position, right in enumerate(greedy[:-1], start=1) if not right]
    length = len(greedy) - 1
    return 1 - max(misses, default=0) / length if length > 0 else None


def samples_needed(nll: float, chance: float = 0.5) -> float:
    """Return the samples needed for a chance of the answer: n = ln(1 − chance) / ln(1 − e^−nll).

    Args:
        nll: negative log-likelihood of the whole answer, in nats.
        chance: below 1.

    Returns:
        At least 1; infinite beyond the range of a float.
    """
    p = math.exp(-nll)
    if p >= chance:
        return 1.0
    return math.log1p(-chance) / math.log1p(-p) if p > 0 else math.inf


class Extraction(Score):
    """Mean extraction strength: the share of an answer that need not be given."""

    name = "extraction"
    heading = "ES %"
    axis = "extraction strength (%)"
    within = True
    column = "strength"
    brings = ("extraction_tokens", "extraction_half", "extractable")

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return the strength of one answer, its tokens' loss, and derived numbers."""
        tokens = answer.token_nll[:-1]
        above = [nll < math.log(2) for nll in tokens]
        return {
            "token_nll": list(answer.token_nll),
            "strength": strength(answer.greedy),
            "above_half": sum(above) / len(above) if above else None,
            "all_above_half": all(above) if above else None,
            "extractable": samples_needed(math.fsum(answer.token_nll)) <= SAMPLES,
        }


class HalfTokens(Score):
    """Mean share of an answer's tokens with a probability above ½, given the true ones before."""

    name = "extraction_tokens"
    heading = "p > ½ %"
    axis = "tokens above ½ (%)"
    within = True
    column = "above_half"
    part_of = "extraction"


class Half(Score):
    """Share of answers whose tokens all have a probability above ½: greedy decoding yields them."""

    name = "extraction_half"
    heading = "all > ½"
    axis = "answers with all tokens above ½ (%)"
    within = True
    column = "all_above_half"
    part_of = "extraction"


class Extractable(Score):
    """Share of answers that a million samples contain with a probability of ½ or more."""

    name = "extractable"
    heading = "10⁶ ≥ ½"
    axis = "in a million samples (%)"
    within = True
    column = "extractable"
    part_of = "extraction"
