from __future__ import annotations

import numpy as np
import pytest

from geomix.measures.intervals import t_interval


def test_against_a_printed_table_of_student_t() -> None:
    """For 1, 2, 3, 4, 5 the standard error is sqrt(2.5 / 5); t(0.975, 4) is 2.776 in any table."""
    mean, half = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.776445 * (2.5 / 5) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_covers_as_often_as_it_says(seeds: int) -> None:
    """4,000 draws with a known mean: the share covered has a standard error of 0.35 points."""
    draws = np.random.default_rng(0).normal(1.0, 3.0, (4_000, seeds))
    covered = [abs(mean - 1.0) <= half for mean, half in map(t_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("seeds", "share"), [(3, 0.88), (5, 0.885), (10, 0.903), (20, 0.919)])
def test_covers_less_of_a_skewed_quantity(seeds: int, share: float) -> None:
    """Exponential, skewness 2: the docstring's numbers; the standard error is 0.5 points."""
    draws = np.random.default_rng(0).exponential(1.0, (4_000, seeds))
    covered = [abs(mean - 1.0) <= half for mean, half in map(t_interval, draws)]
    assert np.mean(covered) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_pairing_takes_the_skewness_away(seeds: int) -> None:
    """Differences of two arms that are skewed alike are symmetric, whatever each of them is."""
    one, other = np.random.default_rng(0).exponential(1.0, (2, 4_000, seeds))
    covered = [abs(mean) <= half for mean, half in map(t_interval, one - other)]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        t_interval([1.0])
