"""Sums and differences."""

from __future__ import annotations

from itertools import combinations

import pytest

from geomix.data.sources import arithmetic
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.data.split import SPLITS
from geomix.util.errors import UserError


def test_answers_are_right() -> None:
    """Python's own evaluation of the question's text is the other way to the answer."""
    examples = arithmetic.examples(2_000, 0, "train")
    for example in examples:
        question = example.prompt.removeprefix("What is ").removesuffix("?")
        assert set(question) <= set("0123456789+- ")
        assert example.target == str(eval(question))
    assert len({e.prompt for e in examples}) == 2_000
    signs = sum("+" in e.prompt for e in examples)
    assert 850 < signs < 1_150
    assert any(e.target.startswith("-") for e in examples)


def test_splits_share_no_question_whatever_the_seeds() -> None:
    asked = [
        {e.prompt for e in arithmetic.examples(3_000, seed, split)}
        for seed, split in enumerate(SPLITS)
    ]
    assert not any(one & other for one, other in combinations(asked, 2))


def test_a_larger_set_begins_with_the_smaller_one() -> None:
    assert arithmetic.examples(50, 4, "id")[:20] == arithmetic.examples(20, 4, "id")
    assert arithmetic.examples(20, 4, "id") != arithmetic.examples(20, 5, "id")


def test_it_has_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic.MOST == 250_000
    monkeypatch.setattr(arithmetic, "MOST", 30)
    assert arithmetic.examples(10**9, 0, "id") == arithmetic.examples(30, 0, "id")
    with pytest.raises(UserError, match=r": 30 examples found \(a split .*\), 31 asked for; set l"):
        examples_of("arithmetic", Request(31, 0))
