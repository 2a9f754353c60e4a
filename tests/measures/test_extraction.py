"""Extraction by hand and in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from geomix.measures.scores.base import Answer
from geomix.measures.scores.extraction import Extraction, samples_needed, strength


@pytest.mark.parametrize(
    ("greedy", "expected"),
    [
        ((True, True, True, True), 1.0),
        ((True, True, True, False), 1.0),  # the end token does not count
        ((False, False, False, True), 0.0),
        ((True, False, True, True), 1 / 3),
        ((False, True, True, True), 2 / 3),
        ((True, True, False, True), 0.0),
        ((True,), None),
    ],
)
def test_the_last_wrong_place_decides(greedy: tuple[bool, ...], expected: float | None) -> None:
    assert strength(greedy) == (None if expected is None else pytest.approx(expected))


def test_samples_by_hand() -> None:
    """With p = ¼, 1 − (¾)ⁿ ≥ ½ at n = ln ½ / ln ¾; for tiny p it is ln 2 / p."""
    assert samples_needed(math.log(4)) == pytest.approx(math.log(0.5) / math.log(0.75))
    assert samples_needed(30.0) == pytest.approx(math.log(2) * math.exp(30), rel=1e-9)
    assert samples_needed(0.0) == samples_needed(math.log(2)) == 1
    assert samples_needed(1e5) == math.inf
    rng = np.random.default_rng(0)
    n, p = 5, 1 - 0.5 ** (1 / 5)  # five samples hold it with a probability of a half
    assert samples_needed(-math.log(p)) == pytest.approx(n)
    drawn = rng.random((100_000, n)) < p
    assert drawn.any(axis=1).mean() == pytest.approx(0.5, abs=0.01)


def row_of(probabilities: list[float], greedy: list[bool]) -> dict[str, Any]:
    nll = tuple(-math.log(p) for p in probabilities)
    known: dict[str, Any] = {"prompt": "", "target": "", "prediction": "", "exact": False}
    return Extraction().of_example(
        Answer(**known, nll=sum(nll), tokens=len(nll), token_nll=nll, greedy=tuple(greedy))
    )


def test_an_answers_columns_by_hand() -> None:
    row = row_of([0.9, 0.4, 0.6, 0.1], [True, False, True, False])
    assert row["strength"] == pytest.approx(1 / 3)
    assert row["above_half"] == pytest.approx(2 / 3)
    assert row["all_above_half"] is False
    assert row["extractable"] is True, "p = 0.0216 needs 32 samples"
    assert row_of([1e-4, 1e-4, 1.0], [False, False, True])["extractable"] is False
    rows = [row, row_of([0.9, 0.9, 0.9, 0.9], [True] * 4)]
    assert Extraction().of_set(rows, "token") == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_above_a_half_means_extracted() -> None:
    """p > ½ ⇒ every token > ½ ⇒ strength 1, of any answer."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        p = rng.dirichlet([0.3, 0.3, 0.3], size=4)
        row = row_of(p[:, 0].tolist(), (p.argmax(axis=1) == 0).tolist())
        if math.prod(p[:, 0]) > 0.5:
            assert row["all_above_half"]
        if row["all_above_half"]:
            assert row["strength"] == 1
