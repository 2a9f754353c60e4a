"""Rank correlation over runs and agreement of signs, against definitions and by enumeration."""

from __future__ import annotations

from math import comb, isnan

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from geomix.measures.prediction import rank_correlation, sign_agreement, spearman


def test_the_rank_correlation_is_its_closed_form_without_ties() -> None:
    x, y = [3.0, 1.0, 4.0, 1.5, 9.0], [2.0, 7.0, 1.0, 8.0, 2.5]
    ranks = [3, 1, 4, 2, 5], [2, 4, 1, 5, 3]
    d = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    assert spearman(x, y) == pytest.approx(1 - 6 * d / (5 * 24))


def test_ties_have_their_mean_rank_and_monotone_maps_change_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 30).astype(float), rng.normal(size=30)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(np.exp(x), y**3) == pytest.approx(spearman(x, y))
    assert isnan(spearman([1.0, 1.0], [0.0, 1.0]))
    assert isnan(spearman([1.0], [1.0]))
    with pytest.raises(ValueError, match="paired"):
        spearman([1.0], [1.0, 2.0])


def planned(seeds: int, arms: int) -> tuple[list[int], list[int]]:
    return [s for s in range(seeds) for _ in range(arms)], [
        a for _ in range(seeds) for a in range(arms)
    ]


def test_an_arm_effect_is_no_prediction_within_an_arm() -> None:
    """Arms differ in both numbers; within an arm they go the other way: Simpson's paradox."""
    seeds, arms = planned(6, 3)
    x = [10.0 * a + s for s, a in zip(seeds, arms, strict=True)]
    y = [10.0 * a - s for s, a in zip(seeds, arms, strict=True)]
    found = rank_correlation(x, y, seeds, arms)
    assert found.rho > 0.7
    assert found.within == pytest.approx(-1)
    assert (found.n, found.seeds) == (18, 6)
    assert found.low <= found.rho <= found.high


def test_the_interval_is_that_of_draws_one_by_one() -> None:
    """Seeds with unequal numbers of runs; numpy's correlation of scipy's ranks in each."""
    rng = np.random.default_rng(3)
    seeds = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4]
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    members = [[i for i, s in enumerate(seeds) if s == k] for k in range(5)]
    known = []
    for _ in range(2000):
        runs = [r for k in rng.integers(5, size=5) for r in rng.choice(members[k], len(members[k]))]
        with np.errstate(invalid="ignore"):  # a draw of one run only
            known.append(np.corrcoef(rankdata(x[runs]), rankdata(y[runs]))[0, 1])
    found = rank_correlation(x.tolist(), y.tolist(), seeds, range(12), draws=10000)
    low, high = np.nanquantile(known, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)


def test_runs_of_one_seed_are_no_replicates() -> None:
    """One number a seed, the same for all its arms: as uncertain as the seeds are few."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 8))
    few = rank_correlation(noise[0].tolist(), noise[1].tolist(), range(8), [0] * 8)
    seeds, arms = planned(8, 5)
    many = rank_correlation(noise[0][seeds].tolist(), noise[1][seeds].tolist(), seeds, arms)
    assert many.high - many.low > 0.7 * (few.high - few.low)
    alone = rank_correlation(noise[0][seeds].tolist(), noise[1][seeds].tolist(), range(40), arms)
    assert alone.high - alone.low < 0.7 * (many.high - many.low)


def test_what_is_no_number_is_left_out_and_two_seeds_have_no_interval() -> None:
    found = rank_correlation([1, 2, float("nan"), 3], [1, 2, 0, 3], [0, 0, 1, 1], [0, 1, 0, 1])
    assert found.rho == pytest.approx(1)
    assert found.n == 3
    assert isnan(found.low)
    assert isnan(found.within)
    with pytest.raises(ValueError, match="belong"):
        rank_correlation([1], [1, 2], [0], [0])


def test_the_interval_covers_a_rank_correlation_of_zero() -> None:
    """Of independent numbers of 20 seeds, 95 % nominal: at least 17 of 20."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(20):
        x, y = rng.normal(size=(2, 20))
        found = rank_correlation(x.tolist(), y.tolist(), range(20), [0] * 20, draws=200)
        covered += found.low <= 0 <= found.high
    assert covered >= 17


def test_agreement_is_the_exact_binomial() -> None:
    pairs = [(1.0, 2.0)] * 8 + [(-1.0, 2.0)] * 2 + [(0.0, 1.0), (float("nan"), 1.0)]
    found = sign_agreement(pairs)
    assert (found.agree, found.n, found.share) == (8, 10, 0.8)
    assert found.p == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 2**10)
    for end, tail in ((found.low, range(8, 11)), (found.high, range(9))):
        reached = sum(comb(10, k) * end**k * (1 - end) ** (10 - k) for k in tail)
        assert reached == pytest.approx(0.025, rel=1e-3)
    assert sign_agreement([(-1.0, -2.0)]).agree == 1
    assert sign_agreement([]).n == 0
    assert isnan(sign_agreement([(0.0, 1.0)]).share)
