"""A set's scores are means of its examples' own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geomix.measures.scores import DEFAULT, chosen
from geomix.measures.scores.base import Answer
from geomix.training.evaluate import SetResult, row_of, summarise

ANSWER = Answer(
    prompt="",
    target="red apple",
    prediction="apple",
    exact=False,
    aliases=("Apple", "fruit"),
    nll=6.0,
    tokens=3,
)


def result(answers: list[Answer], *, within: bool = False) -> SetResult:
    scores = [score for score in chosen(()) if score.within or not within]
    return summarise([row_of(answer, scores) for answer in answers], scores, "token")


def test_every_score_by_hand() -> None:
    """Three of four are right, one in other words; two have a final number; one is cut."""
    answers = [
        ANSWER,
        replace(ANSWER, prediction="red apple", exact=True),
        replace(ANSWER, target="pear #### 4", prediction="pear 4", aliases=(), cut=True),
        replace(ANSWER, target="#### 5", prediction="4", exact=True),
    ]
    found = result(answers)
    assert found.n == 4
    assert list(found.scores) == list(DEFAULT)
    assert [found[name] for name in ("exact_match", "alias_match", "cut")] == [50.0, 75.0, 25.0]
    assert (found["loss"], found["final_number"]) == (2.0, 50.0)
    assert found["token_f1"] == pytest.approx(100 * (1 + 1 + 1 + 0) / 4)
    assert found["rouge_l"] == pytest.approx(100 * (2 / 3 + 1 + 1 + 0) / 4)
    assert found.scores["kl"] is None


def test_without_a_final_number_there_is_no_score_of_it() -> None:
    assert result([ANSWER]).scores["final_number"] is None


def test_an_examples_line_has_the_columns_of_before_in_their_order() -> None:
    columns = ["prompt", "target", "prediction", "cut", "exact", "alias", "f1", "rouge_l"]
    row = row_of(ANSWER, chosen(()))
    assert list(row) == [*columns, "final_number", "nll", "tokens"]
    brief = row_of(ANSWER, [score for score in chosen(()) if score.within])
    assert list(brief) == list(row)
    assert brief["alias"] is brief["f1"] is brief["rouge_l"] is brief["final_number"] is None
    assert not brief["cut"]
    measured = {name for name, value in result([ANSWER], within=True).scores.items() if value}
    assert measured <= {"exact_match", "loss"}
