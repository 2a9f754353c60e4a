"""Laws of retention: planted ones are found again, and intervals cover as often as they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import least_squares

from geomix.measures.law_choice import _resampled, _Spread, choose, weights_of
from geomix.measures.retention_laws import LAWS, Floats, Law, fit, lacking

DRAWS = 1_000
POWER, POWER_FLOOR, EXPONENTIAL, EXPONENTIAL_FLOOR, LOGARITHM = LAWS


def curves(law: Law, t: Floats, tau: Floats, alpha: Floats, beta: Floats) -> Floats:
    """R of a law, written out anew: `(B, n)`."""
    u = t / tau[:, None]
    if law.family == "logarithm":
        return 1 - beta[:, None] * np.log(1 + u)
    left = np.exp(-u) if law.family == "exponential" else (1 + u) ** -alpha[:, None]
    floor = 1 - beta[:, None]
    return floor + (1 - floor) * left


def planted(law: Law, t: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Curves of a law with random parameters, τ well within the data."""
    most = t[-1] / (10 if law.family == "power" else 4)
    tau = np.exp(rng.uniform(np.log(2), np.log(most), draws))
    alpha = np.exp(rng.uniform(np.log(0.4), np.log(2), draws))
    beta = 1 - rng.uniform(0.1, 0.4, draws) if law.floor else np.ones(draws)
    if law.family == "logarithm":
        beta = rng.uniform(0.5, 0.95, draws) / np.log1p(t[-1] / tau)
    return curves(law, t, tau, alpha, beta)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_1000_noisy_curves_recover_their_law(law: Law) -> None:
    """24 evaluations over a factor of 200, noise of 0.01: the family of the lowest AICc."""
    rng = np.random.default_rng(0)
    t = np.geomspace(1, 200, 24)
    noisy = planted(law, t, rng, DRAWS) + rng.normal(0, 0.01, (DRAWS, len(t)))
    fits = [fit(one, t, noisy) for one in LAWS]
    scores = np.array([np.where(one.inside, one.aicc(), np.inf) for one in fits])
    families = np.array([one.family for one in LAWS])[scores.argmin(axis=0)]
    assert np.mean(families == law.family) >= 0.95


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_fits_are_those_of_scipy(law: Law) -> None:
    """No better fit than scipy's from the true parameters, nor a worse one."""
    rng = np.random.default_rng(1)
    t = np.geomspace(1, 200, 24)
    tau, alpha, beta = 12.0, 0.8, {True: 0.7, False: 1.0}[law.floor]
    beta = 0.2 if law.family == "logarithm" else beta
    given = np.array([beta] * 5)
    noisy = curves(law, t, np.full(5, tau), np.full(5, alpha), given)
    noisy += rng.normal(0, 0.02, noisy.shape)
    found = fit(law, t, noisy)

    def missed(x: Floats, curve: Floats) -> Floats:
        free = x[2] if law.scaled else 1.0
        one = curves(law, t, np.exp(x[:1]), np.exp(x[1:2]), np.array([free]))
        missing: Floats = one[0] - curve
        return missing

    for i, curve in enumerate(noisy):
        start = np.array([np.log(tau), np.log(alpha), beta])
        theirs = least_squares(missed, start, args=(curve,), xtol=1e-12, ftol=1e-12)
        assert found.errors[i] == pytest.approx(2 * theirs.cost, rel=1e-6)
        assert found.tau[i] == pytest.approx(np.exp(theirs.x[0]), rel=1e-3)


def test_every_law_begins_at_1() -> None:
    for law in LAWS:
        assert law.shape(np.zeros(1), np.ones(1), np.ones(1)) == 0


@pytest.mark.parametrize(
    ("law", "seeds", "noise"),
    [
        (EXPONENTIAL, 1, 0.01),
        (EXPONENTIAL, 10, 0.02),
        (EXPONENTIAL_FLOOR, 1, 0.01),
        (LOGARITHM, 10, 0.02),
    ],
    ids=str,
)
def test_intervals_cover_the_planted_scale(law: Law, seeds: int, noise: float) -> None:
    """Nominal 95 %; 1,000 curves, whose share has a standard error of 0.7 points."""
    rng = np.random.default_rng(0)
    t = np.geomspace(1, 100, 12)
    beta = {EXPONENTIAL: 1.0, EXPONENTIAL_FLOOR: 0.8, LOGARITHM: 0.2}[law]
    (true,) = curves(law, t, np.array([8.0]), np.ones(1), np.array([beta]))
    covered = 0
    for _ in range(DRAWS):
        noisy = true + rng.normal(0, noise, (seeds, len(t)))
        one = fit(law, t, noisy.mean(axis=0, keepdims=True))
        refits = fit(law, t, _resampled(t, noisy, one, rng, 100))
        spread = _Spread(refits, seeds)
        _, low, high = spread.around(float(one.tau[0]), refits.tau, log=True)
        covered += low <= 8.0 <= high
    assert 0.93 <= covered / DRAWS <= 0.975


def test_fewer_than_6_evaluations_or_a_decade_are_refused() -> None:
    assert "5 evaluations of the 6" in lacking(np.geomspace(1, 100, 5))
    assert "a factor of 9" in lacking(np.geomspace(1, 9, 8))
    assert lacking(np.geomspace(1, 10, 6)) == ""
    with pytest.raises(ValueError, match="of the 6"):
        fit(POWER, np.geomspace(1, 100, 5), np.ones((1, 5)))


@pytest.mark.parametrize(
    ("curve", "law", "why"),
    [
        (lambda t: 1 + 0.01 * t, LOGARITHM, "does not fall"),
        (lambda t: np.exp(-t / 1000), EXPONENTIAL, "τ outside the data"),
        (lambda t: 1.3 * np.exp(-t / 20) - 0.3, EXPONENTIAL_FLOOR, "floor below 0"),
    ],
)
def test_a_law_that_the_data_do_not_allow_is_rejected(
    curve: Callable[[Floats], Floats], law: Law, why: str
) -> None:
    t = np.geomspace(1, 100, 12)
    states = {one.law: one.state for one in choose(t, curve(t)[None]).candidates}
    assert why in states[law]


def test_a_clear_curve_has_its_law_and_its_rivals() -> None:
    t = np.geomspace(1, 200, 24)
    rng = np.random.default_rng(3)
    noisy = curves(POWER, t, np.full(6, 5.0), np.ones(6), np.ones(6))
    choice = choose(t, noisy + rng.normal(0, 0.01, noisy.shape))
    assert choice.best is not None
    assert choice.best.law.family == "power"
    assert choice.family > 0.95
    assert choice.best.tau[1] < 5.0 < choice.best.tau[2]
    assert choice.best.alpha[1] < 1.0 < choice.best.alpha[2]
    assert sum(one.weight for one in choice.candidates) == pytest.approx(1)
    again = choose(t, noisy + np.random.default_rng(3).normal(0, 0.01, noisy.shape))
    assert again == choice or str(again) == str(choice)  # nan is not nan


def test_points_of_many_seeds_weigh_by_their_variance() -> None:
    rng = np.random.default_rng(0)
    scale = np.geomspace(0.01, 0.1, 8)
    assert weights_of(rng.normal(0, scale, (4, 8))) is None
    weights = weights_of(rng.normal(0, scale, (4000, 8)))
    assert weights is not None
    ratio = weights[-2] / weights[-1]
    assert ratio == pytest.approx((scale[-1] / scale[-2]) ** 2, rel=0.1)
    assert weights.max() == pytest.approx(10 / np.mean(scale**2), rel=0.1)


def test_a_noisy_point_counts_less() -> None:
    t = np.geomspace(1, 100, 12)
    curve = np.exp(-t / 8)[None].copy()
    curve[0, 5] += 0.2
    weights = np.ones(12)
    weights[5] = 1e-6
    assert fit(EXPONENTIAL, t, curve, weights).tau[0] == pytest.approx(8, rel=1e-4)
    assert abs(fit(EXPONENTIAL, t, curve).tau[0] - 8) > 0.1
