"""Bits memorised, against closed forms and enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from geomix.data.sources import arithmetic, kvr, random_words, triples
from geomix.measures.scores.base import Answer
from geomix.measures.scores.bits import Bits, EndBits, Hedged, code_length, hedged

H = 8 * math.log2(36)


def answer(token_nll: list[float], entropy: float | None = H) -> Answer:
    total = sum(token_nll)
    known: dict[str, Any] = {"prompt": "", "target": "", "prediction": "", "exact": False}
    return Answer(
        **known, nll=total, tokens=len(token_nll), entropy=entropy, token_nll=tuple(token_nll)
    )


def test_certainty_is_all_bits_and_the_uniform_code_none() -> None:
    certain = Bits().of_example(answer([0.0] * 9))
    assert certain == {"entropy": H, "bits": H, "bits_hedged": hedged(H), "bits_end": 0.0}
    uniform = Bits().of_example(answer([math.log(36)] * 8 + [0.0]))
    assert uniform["bits"] == pytest.approx(0, abs=1e-12)
    with_end = Bits().of_example(answer([math.log(36)] * 8 + [math.log(2)]))
    assert (with_end["bits"], with_end["bits_end"]) == (pytest.approx(-1), pytest.approx(1))


def test_an_answer_that_its_prompt_says_has_no_bits() -> None:
    for entropy in (0.0, None):
        row = Bits().of_example(answer([1.0], entropy))
        assert row["bits"] is row["bits_hedged"] is row["bits_end"] is None
        assert Bits().of_set([row], "token") is None


def test_a_sets_bits_are_the_mean_of_its_facts() -> None:
    rows = [Bits().of_example(answer([x, 0.0])) for x in (0.0, math.log(4))]
    rows.append(Bits().of_example(answer([9.0], None)))
    assert Bits().of_set(rows, "token") == pytest.approx(H - 1)
    assert Hedged().of_set(rows, "token") == pytest.approx((hedged(H) + hedged(H - 2)) / 2)
    assert EndBits().of_set(rows, "token") == 0.0


@pytest.mark.parametrize("bits", [-2000.0, -3.0, 0.0, 0.5, 41.0, 2000.0])
def test_hedged_bits_are_half_a_bet(bits: float) -> None:
    assert hedged(bits) == pytest.approx(np.logaddexp2(bits, 0.0) - 1, abs=1e-12)
    assert hedged(bits) >= -1


def test_ignorance_has_no_bits_whatever_it_predicts() -> None:
    """All strings of up to three letters of a random model: Σ p ≤ 1, hence E 2^b ≤ 1, E b ≤ 0.

    The truth is drawn uniformly from those of three letters, without regard to the model.
    """
    rng = np.random.default_rng(3)
    letters, end = 3, 3
    for sharpness in (0.1, 1.0, 10.0):
        table = {
            prefix: np.log(rng.dirichlet(np.full(letters + 1, 1 / sharpness)) + 1e-300)
            for n in range(4)
            for prefix in itertools.product(range(letters), repeat=n)
        }

        def nll(word: tuple[int, ...], table: Any = table) -> list[float]:
            steps = [-table[word[:i]][word[i]] for i in range(len(word))]
            return [*steps, -table[word][end]]

        words = [w for n in range(4) for w in itertools.product(range(letters), repeat=n)]
        assert sum(2 ** -code_length(tuple(nll(word))) for word in words) <= 1 + 1e-9
        entropy = 3 * math.log2(letters)
        truths = list(itertools.product(range(letters), repeat=3))
        found = [Bits().of_example(answer(nll(word), entropy)) for word in truths]
        assert np.mean([2 ** row["bits"] for row in found]) <= 1 + 1e-9
        assert np.mean([row["bits"] for row in found]) <= 0
        assert np.mean([row["bits_hedged"] for row in found]) <= 0
        assert np.mean([row["bits"] >= 3 for row in found]) <= 2**-3


def test_sources_state_what_their_generators_draw() -> None:
    (pair,) = kvr.examples(1, 0, "train")
    assert pair.entropy == pytest.approx(math.log2(36**8))
    (fact,) = triples.examples(1, 0, "train")
    assert fact.entropy == math.log2(len(triples.objects(triples.RELATIONS[0]))) == 6
    assert arithmetic.examples(1, 0, "train")[0].entropy == 0
    assert random_words.examples(1, 3, 0)[0].entropy == 0
    assert "entropy" not in pair.texts()
