"""A set's scores are means of its examples' own."""

from __future__ import annotations

from dataclasses import replace

from geomix.models.score import Verdict
from geomix.training.evaluate import SetResult, summarise

VERDICT = Verdict(
    prompt="",
    target="",
    prediction="",
    exact=False,
    alias=True,
    f1=0.5,
    rouge_l=0.25,
    final_number=None,
    nll=6.0,
    tokens=3,
)


def test_every_score_by_hand() -> None:
    """Of four examples three are right under another name, two have a final number, one is cut."""
    verdicts = [
        VERDICT,
        replace(VERDICT, exact=True, f1=1.0, final_number=True),
        replace(VERDICT, alias=False, f1=0.0, rouge_l=0.0, final_number=False),
        replace(VERDICT, rouge_l=1.0, cut=True),
    ]
    assert summarise(verdicts, "token") == SetResult(
        n=4,
        exact_match=25.0,
        loss=2.0,
        alias_match=75.0,
        token_f1=50.0,
        rouge_l=37.5,
        final_number=50.0,
        cut=25.0,
    )


def test_without_a_final_number_there_is_no_score_of_it() -> None:
    assert summarise([VERDICT], "token").final_number is None
