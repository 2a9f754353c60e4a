"""Texts are compared as the paper, SQuAD, ROUGE and GSM8K do."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix.measures.text import (
    common_subsequence,
    exact,
    final_number,
    matches_any,
    may_become,
    normalise,
    percent,
    rouge_l,
    same_final_number,
    token_f1,
)


def test_exact_match_looks_past_case_and_outer_white_space_only() -> None:
    assert normalise("\n Charles  FORT ") == "charles  fort"
    assert exact(" charles fort\n", "Charles Fort")
    assert not exact("Charles  Fort", "Charles Fort")
    assert not exact("Charles Fort.", "Charles Fort")
    assert not exact("Charles", "Charles Fort")


@pytest.mark.parametrize(
    ("said", "target", "possible"),
    [
        ("", "Charles Fort", True),
        (" \ncharles F", "Charles Fort", True),
        ("Charles Fort \n", "charles fort", True),
        ("Charles Fort .", "charles fort.", True),  # a tokenizer may drop that space at the end
        ("Charles Fu", "Charles Fort", False),
        ("Charles Fort II", "Charles Fort", False),
        ("日\ufffd\ufffd", "日本", True),  # the first bytes of a character
        ("月\ufffd", "日本", False),
        ("ΣΑΣ", "σασα", True),  # σ now, but ς where the word ends
        ("x", "", False),
        ("", "", False),
    ],
)
def test_what_was_said_may_still_become_the_target(said: str, target: str, possible: bool) -> None:
    assert may_become(said, target) is possible


LETTERS = st.text(st.sampled_from("aAσΣςßẞİi\u0307ﬁ日 \n.'") | st.characters(codec="utf-8"))


@given(LETTERS, st.integers(0, 20), st.sampled_from((str, str.upper, str.lower, str.title)))
def test_every_beginning_of_an_exact_match_may_become_it(text: str, cut: int, style: Any) -> None:
    said = f" {style(text)}\n"
    if exact(said, text):
        assert may_become(said[:cut], text)


def test_folding_forgets_whatever_lower_case_does() -> None:
    """So that texts that are equal in lower case never differ once folded; every character."""
    every = (chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    assert all(c.lower().casefold() == c.casefold() for c in every)


@pytest.mark.parametrize("empty", ["", " ", "\n\t"])
def test_nothing_is_never_right(empty: str) -> None:
    assert not exact(empty, "")
    assert not exact("", empty)
    assert not exact("x", empty)
    assert not exact(empty, "x")
    assert not matches_any(empty, ["x", empty])
    assert token_f1(empty, [empty]) == rouge_l(empty, empty) == 0


def test_any_accepted_answer_counts() -> None:
    assert matches_any("nyc", ["New York", "NYC"])
    assert not matches_any("York", ["New York", "NYC"])
    assert not matches_any("York", [])


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0),
        ("Eiffel", ["the Eiffel Tower"], 2 / 3),  # precision 1, recall 1/2
        ("a b b b c", ["b b d"], 2 * 2 / (4 + 3)),  # "a" is an article; "b" counts twice
        ("New York", ["Boston", "York"], 2 / 3),  # the best answer
        ("York York", ["York"], 2 / 3),
        ("theatre", ["atre"], 0.0),  # an article is a whole word
        ("U.S.", ["us"], 1.0),
        ("the", ["x"], 0.0),
        ("x", ["the"], 0.0),
        ("The The", ["the the"], 1.0),
        ("!", ["The The"], 0.0),
        ("x", [], 0.0),
    ],
)
def test_token_f1_by_hand(prediction: str, answers: list[str], expected: float) -> None:
    assert token_f1(prediction, answers) == pytest.approx(expected, abs=1e-12)


def table_length(first: list[str], second: list[str]) -> int:
    """The textbook's table of the longest common subsequence, cell by cell."""
    above = [0] * (len(second) + 1)
    for token in first:
        row = [0]
        for index, other in enumerate(second):
            row.append(above[index] + 1 if token == other else max(above[index + 1], row[-1]))
        above = row
    return above[-1]


@pytest.mark.parametrize("kinds", [1, 2, 5, 40])
def test_the_common_subsequence_is_that_of_the_table(kinds: int) -> None:
    """Dynamic programming shares no line with the bit-parallel form; lengths cross 64 bits."""
    rng = Random(kinds)
    for _ in range(100):
        first, second = (
            [str(rng.randrange(kinds)) for _ in range(rng.randrange(150))] for _ in "ab"
        )
        assert common_subsequence(first, second) == table_length(first, second)


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        ("The cat sat on the mat.", "the cat is on the mat", 0.8333333333333334),
        ("Paris, France", "France", 0.6666666666666666),
        ("it's 1,000 km", "It is 1000 km", 0.4444444444444445),
        ("b a c a d", "a b c d a", 0.6),
        ("café", "cafe", 0.0),
    ],
)
def test_rouge_l_is_that_of_the_package(prediction: str, target: str, expected: float) -> None:
    """Printed by rouge-score 0.1.2:

    RougeScorer(["rougeL"]).score(target, prediction)["rougeL"].fmeasure
    """
    assert rouge_l(prediction, target) == pytest.approx(expected, abs=1e-12)


@given(st.text(min_size=1), st.sampled_from([str.upper, str.strip, lambda text: f" {text}\n"]))
def test_what_is_exact_has_full_partial_credit(text: str, change: object) -> None:
    assert callable(change)
    other = change(text)
    if exact(other, text):
        assert matches_any(other, ["nothing like it", text])
        assert token_f1(other, [text]) == 1
        assert rouge_l(other, text) == (1 if re.search("[a-z0-9]", text.lower()) else 0)


@given(st.text("ab ", max_size=40), st.text("ab ", max_size=40))
def test_partial_credit_is_symmetric_and_at_most_one(first: str, second: str) -> None:
    for score in (rouge_l(first, second), token_f1(first, [second])):
        assert 0 <= score <= 1
    assert rouge_l(first, second) == rouge_l(second, first)
    assert token_f1(first, [second]) == token_f1(second, [first])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3 + 4 = 7.\n#### 7", "7"),
        ("#### 1,234,567", "1234567"),
        ("#### -5", "-5"),
        ("#### $1,000.", "1000"),
        ("#### 18 dollars for 2", "18"),
        ("#### 5 \n\n#### 6", "6"),
        ("he has 3, then 4 left.", "4"),
        ("it is -$5.50.", "-5.50"),
        ("it is $-3", "-3"),
        ("x=−3", "-3"),
        ("10-5", "5"),
        ("(10 + 2)-5", "5"),
        ("50%", "50"),
        (".5", "0.5"),
        ("1,2,3", "3"),
        ("1,2345", "2345"),
        ("12 tons of CO2", "12"),
        ("12km", "12"),
        ("99999999999999999999.5", "99999999999999999999.5"),
    ],
)
def test_the_final_number_of_a_solution(text: str, expected: str) -> None:
    assert final_number(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "none", "5 ####", "#### none", "a1", "-", "$", "."])
def test_a_solution_without_a_number(text: str) -> None:
    assert final_number(text) is None


def test_the_same_number_however_it_is_written() -> None:
    assert same_final_number("The answer is $1,000.00.", "so\n#### 1000") is True
    assert same_final_number("1000 is less than 1001", "#### 1000") is False
    assert same_final_number("no idea", "#### 1000") is False
    assert same_final_number("1000", "1000") is None, "defined for GSM8K's targets only"
    assert same_final_number("1000", "#### none") is None


def test_the_final_numbers_of_gsm8k(shared_data: Path) -> None:
    """Against the expression of GSM8K's own `extract_answer`, on every solution of its files."""
    count = 0
    for file in ("train", "test"):
        for line in (shared_data / "gsm8k" / f"{file}.jsonl").read_text("utf-8").splitlines():
            answer = json.loads(line)["answer"]
            found = re.search(r"#### (\-?[0-9\.\,]+)", answer)
            assert found
            assert final_number(answer) == Decimal(found[1].replace(",", ""))
            count += 1
    assert count > 8000


def test_percent_is_of_what_is_defined() -> None:
    assert percent([True, False, None, True, True]) == 75
    assert percent([0.25, 0.75]) == 50
    assert percent([None, None]) is None
    assert percent([]) is None
