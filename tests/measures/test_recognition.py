"""Forced choice among a set's answers, by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from geomix.data.example import Example
from geomix.measures.scores import recognition
from geomix.measures.scores.recognition import (
    TIE,
    Recognition,
    asked_of,
    candidates_of,
    choose,
    others_of,
)


def test_two_candidates_by_hand() -> None:
    """p = ¾ and ¼: right, one bit minus log2 4/3; the other way round wrong."""
    right = choose(math.log(0.75), np.log([0.25]))
    assert (right.top(1), right.auc) == (1, 1)
    assert right.bits == pytest.approx(1 + math.log2(0.75))
    wrong = choose(math.log(0.25), np.log([0.75]))
    assert (wrong.top(1), wrong.top(2), wrong.auc) == (0, 1, 0)
    assert wrong.bits == pytest.approx(1 + math.log2(0.25))


def test_a_constant_model_is_at_chance_and_a_lookup_certain() -> None:
    constant = choose(-5.0, np.full(9, -5.0) + TIE / 3)
    assert constant.top(1) == pytest.approx(0.1)
    assert constant.top(5) == pytest.approx(0.5)
    assert constant.auc == pytest.approx(0.5)
    assert constant.bits == pytest.approx(0, abs=1e-4)
    certain = choose(0.0, np.full(9, -1e4))
    assert (certain.top(1), certain.auc) == (1, 1)
    assert certain.bits == pytest.approx(math.log2(10))


def test_ties_share_their_places() -> None:
    """The credit is the mean over every order in which equals may stand."""
    others = np.array([-1.0, -2.0, -2.0, -2.0, -3.0])
    found = choose(-2.0, others)
    orders = list(itertools.permutations(range(4)))  # of the four that are equal; 0 is the own one
    for k in range(1, 7):
        credit = np.mean([1 + order.index(0) < k for order in orders])
        assert found.top(k) == pytest.approx(credit)
    assert found.auc == pytest.approx((0 + 3 * 0.5 + 1) / 5)


def test_only_the_order_counts_and_the_candidates_have_none() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20) * 5
    first = choose(scores[0], scores[1:])
    for other in (np.exp(scores), scores * 3 + 7):
        again = choose(other[0], other[1:])
        assert (again.better, again.auc) == (first.better, first.auc)
    shuffled = choose(scores[0], rng.permutation(scores[1:]))
    assert (shuffled.better, shuffled.ties) == (first.better, first.ties)
    assert shuffled.bits == pytest.approx(first.bits)


def test_pairs_put_together_anew_are_at_chance() -> None:
    """Over all columns of a row, exactly one answer comes first: the mean is 1/N."""
    matrix = np.random.default_rng(1).normal(size=(7, 7)) * 4
    found = [
        [choose(row[j], np.delete(row, j)) for i, row in enumerate(matrix) for j in [(i + s) % 7]]
        for s in range(7)
    ]
    flat = [one for shift in found for one in shift]
    assert np.mean([one.top(1) for one in flat]) == pytest.approx(1 / 7)
    assert np.mean([one.auc for one in flat]) == pytest.approx(0.5)
    assert np.mean([2**one.bits for one in flat]) == pytest.approx(1)


def test_an_accepted_answer_is_no_wrong_candidate_and_none_stands_twice() -> None:
    examples = [
        Example("a", "Paris", ("paris", "Lutetia")),
        Example("b", "Rome"),
        Example("c", "rome "),
        Example("d", "Lutetia"),
        Example("e", "Bonn"),
    ]
    candidates = candidates_of(examples)
    assert candidates == [0, 1, 3, 4]
    assert others_of(examples, 0, candidates) == [1, 4], "Lutetia is Paris"
    assert others_of(examples, 2, candidates) == [0, 3, 4], "its own answer stands for it"


def test_a_large_set_has_the_same_sample_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "ALL", 10)
    monkeypatch.setattr(recognition, "SAMPLE", 4)
    examples = [Example(f"q{i}", f"a{i}") for i in range(30)]
    drawn = candidates_of(examples)
    assert len(set(drawn)) == 4
    assert drawn == candidates_of(examples)
    assert len(candidates_of(examples[:10])) == 10
    cost = Recognition().cost(examples)
    assert (cost.prompts, cost.answers) == (30, 120)


def test_what_a_prompt_says_is_not_asked() -> None:
    assert asked_of(Example("a", "b"))
    assert asked_of(Example("a", "b", entropy=3.0))
    assert not asked_of(Example("say b", "b", entropy=0.0))
    said = [Example("say b", "b", entropy=0.0), Example("say c", "c", entropy=0.0)]
    assert Recognition().cost(said).answers == 0
