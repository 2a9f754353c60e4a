"""Cross-validated fits: against least squares point by point, and with planted laws."""

from __future__ import annotations

import numpy as np
import pytest

from geomix.measures.cross_validation import (
    FORMS,
    apart_from,
    coefficients,
    curve,
    difference,
    permutations,
    predictions,
    validate,
    whole_arms,
)

ARMS = [arm for arm in "abcd" for _ in range(6)]
SEEDS = [seed for _ in "abcd" for seed in range(6)]
X = np.random.default_rng(0).uniform(0.2, 3.0, 24)
NOISE = np.random.default_rng(1).normal(size=24)


@pytest.mark.parametrize("form", FORMS)
def test_each_point_is_predicted_by_the_points_apart_from_it(form: str) -> None:
    apart, y = apart_from(ARMS, SEEDS), 2 * X + NOISE
    found = predictions(form, X, y, apart)
    for i in range(24):
        there = [j for j in range(24) if ARMS[j] != ARMS[i] and SEEDS[j] != SEEDS[i]]
        assert len(there) == 15
        design = np.stack([X**power for power in FORMS[form]], axis=1)
        fitted = np.linalg.lstsq(design[there], y[there], rcond=None)[0]
        assert found[i] == pytest.approx(design[i] @ fitted)
    moved = np.where([arm == "a" or seed == 0 for arm, seed in zip(ARMS, SEEDS, strict=True)], 9, y)
    assert predictions(form, X, moved, apart)[0] == pytest.approx(found[0])
    np.testing.assert_allclose(predictions(form, np.stack([X, X]), y, apart)[1], found)


@pytest.mark.parametrize(("form", "planted"), [("linear", (3.0,)), ("quadratic", (2.0, 0.5))])
def test_a_planted_law_is_found_and_beats_a_bystander(form: str, planted: tuple[float]) -> None:
    y = curve(form, np.array(planted), X)
    apart = apart_from(ARMS, SEEDS)
    law = validate(form, X, y, apart, ARMS, SEEDS)
    other = validate(form, np.abs(NOISE), y, apart, ARMS, SEEDS)
    assert coefficients(form, X, y) == pytest.approx(planted)
    assert law.skill == pytest.approx(1)
    assert law.within == pytest.approx(1)
    assert other.skill < 0.3
    assert law.p <= 0.05 < other.p
    mean, low, high = difference(law, other, SEEDS)
    assert mean == pytest.approx(law.skill - other.skill)
    assert low < mean < high
    assert difference(other, law, SEEDS) == pytest.approx((-mean, -high, -low))
    assert law.interval(SEEDS)[0] == pytest.approx(1)


def test_a_constant_predictor_is_as_good_as_the_mean() -> None:
    """R² is 0 by construction: the baseline is the mean of the same training points."""
    found = validate("root", np.ones(24), 2 + NOISE, apart_from(ARMS, SEEDS), ARMS, SEEDS)
    assert found.skill == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.null, 0, atol=1e-12)


def test_an_interval_is_students_over_units() -> None:
    """Two seeds whose errors are known: 12.7 times the standard error about the mean."""
    found = validate("linear", X, X + NOISE, apart_from(ARMS), ARMS, SEEDS)
    halves = np.array([seed < 3 for seed in SEEDS])
    mean, low, high = found.interval(halves.tolist())
    assert mean == pytest.approx(found.skill)
    left, there = found.errors[halves].sum(), found.baseline[halves].sum()
    apart = 2 * abs(left - (1 - mean) * there) / (found.baseline.sum() / 2)  # of two residuals
    assert high - low == pytest.approx(2 * 12.7062 * apart / 2, rel=1e-4)
    assert np.isnan(found.interval(["one"] * 24)[1])


def test_what_predicts_perfectly_has_no_interval_to_speak_of() -> None:
    """Seeds that forget more than others are no error of the predictor."""
    found = validate("linear", X, 3 * X, apart_from(ARMS), ARMS, SEEDS)
    assert found.interval(SEEDS) == pytest.approx((1, 1, 1))


def test_the_null_exchanges_whole_arms() -> None:
    """What is one number an arm is four numbers, not 24: p is at least 1 / 24."""
    rng = np.random.default_rng(0)
    assert whole_arms(ARMS, SEEDS)
    others = permutations(ARMS, SEEDS, 199, rng)
    assert len({tuple(order) for order in others}) == len(others) == 23
    assert len(permutations(ARMS, SEEDS, 5, rng)) == 5
    for order in others:
        assert sorted(order) == [*range(24)]
        assert [SEEDS[i] for i in order] == SEEDS
        assert len({(arm, ARMS[i]) for arm, i in zip(ARMS, order, strict=True)}) == 4
    level = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    x = np.array([level[arm] for arm in ARMS])
    by_arm = validate("linear", x, 2 * x, apart_from(ARMS, SEEDS), ARMS, SEEDS)
    assert by_arm.skill == pytest.approx(1)
    assert by_arm.p == pytest.approx(1 / 24)
    assert not whole_arms(ARMS[1:], SEEDS[1:])
    (moved,) = permutations(ARMS[1:], SEEDS[1:], 1, rng)
    assert sorted(moved) == [*range(23)]


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match="has no others"):
        validate("linear", X[:6], X[:6], apart_from(ARMS[:6]), ARMS[:6], SEEDS[:6])
    with pytest.raises(ValueError, match="0 or more"):
        validate("root", -X, X, apart_from(ARMS), ARMS, SEEDS)
