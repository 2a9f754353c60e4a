"""Norm, cosine and length of a path's segments, on paths that have a closed form."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix.measures.path_factors import (
    Factors,
    Floats,
    compare,
    factors_of,
    merged,
    paired_points,
    signs_agree,
)
from geomix.measures.shapley import shapley_of_product

TRIPLES = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


def over_orders(before: list[float], after: list[float]) -> Floats:
    """The definition: each factor's step, averaged over the orders of exchange."""
    found = np.zeros(3)
    for order in permutations(range(3)):
        now = list(before)
        for i in order:
            start = float(np.prod(now))
            now[i] = after[i]
            found[i] += (float(np.prod(now)) - start) / 6
    return found


@given(TRIPLES, TRIPLES)
def test_shapley_is_the_mean_over_all_orders(before: list[float], after: list[float]) -> None:
    found = shapley_of_product(np.array(before), np.array(after))
    np.testing.assert_allclose(found, over_orders(before, after), atol=1e-12)
    assert found.sum() == pytest.approx(np.prod(after) - np.prod(before), abs=1e-11)


def test_shapley_takes_three_factors() -> None:
    with pytest.raises(ValueError, match="three"):
        shapley_of_product(np.zeros(2), np.zeros(2))


def drawn(seed: int, count: int = 6) -> Factors:
    g = np.random.default_rng(seed)
    return Factors(g.uniform(0.1, 2, count), g.uniform(-1, 1, count), g.uniform(0.1, 2, count))


def test_both_forms_sum_to_what_they_split() -> None:
    one, two, none = drawn(0), drawn(1), np.zeros(6)
    found = compare(one, two, none, none)
    rising = (one.cosine > 0) & (two.cosine > 0)
    assert 0 < rising.sum() < 6
    np.testing.assert_array_equal(found.ratios, rising)
    logs = np.log(one.integral[rising] / two.integral[rising])
    np.testing.assert_allclose(found.logs.sum(axis=1)[rising], logs, rtol=1e-12)
    assert np.isnan(found.logs[~rising]).all()
    np.testing.assert_allclose(found.shapley.sum(axis=1), one.integral - two.integral, atol=1e-12)
    assert found.parts.sum() == pytest.approx(one.integral.sum() - two.integral.sum())


def test_log_ratios_add_over_a_chain_of_arms() -> None:
    arms = [Factors(f.norm, abs(f.cosine), f.length) for f in map(drawn, range(3))]
    none = np.zeros(6)
    steps = [compare(a, b, none, none).logs for a, b in pairwise(arms)]
    np.testing.assert_allclose(sum(steps), compare(arms[0], arms[2], none, none).logs, atol=1e-12)


def test_a_change_below_its_error_has_no_ratio() -> None:
    one = Factors(np.ones(2), np.array([0.5, 0.5]), np.ones(2))
    found = compare(one, one, np.array([0.4, 0.6]), np.zeros(2))
    assert found.ratios.tolist() == [True, False]
    assert compare(one, one, np.zeros(2), np.array([0.4, 0.6])).ratios.tolist() == [True, False]


def test_paths_of_unlike_length_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="paired"):
        compare(drawn(0, 2), drawn(0, 3), np.zeros(2), np.zeros(3))


def test_a_vanishing_gradient_has_no_angle_and_changes_nothing() -> None:
    found = factors_of(np.zeros(2), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert found.cosine.tolist() == [0.0, 0.0]
    assert found.integral.tolist() == [0.0, 0.0]


def test_segments_put_together_keep_their_changes_and_lengths() -> None:
    whole = drawn(0)
    found = merged(whole, [0, 1, 4, 6])
    for k, (first, last) in enumerate([(0, 1), (1, 4), (4, 6)]):
        part = slice(first, last)
        assert found.integral[k] == pytest.approx(whole.integral[part].sum())
        assert found.length[k] == pytest.approx(whole.length[part].sum())
        mean = np.average(whole.norm[part], weights=whole.length[part])
        assert found.norm[k] == pytest.approx(mean)
    np.testing.assert_allclose(merged(whole, range(7)).stacked, whole.stacked)
    none = Factors(np.zeros(2), np.zeros(2), np.zeros(2))
    assert merged(none, [0, 2]).stacked.tolist() == [[0.0, 0.0, 0.0]]


def simpson(points: list[Floats], hessian: Floats) -> Factors:
    """Factors by block (here: by coordinate) of a quadratic's path through points."""
    ways = np.diff(np.array(points), axis=0)
    starts = np.array(points[:-1])
    nodes = [(starts + t * ways) @ hessian for t in (0.0, 0.5, 1.0)]
    mean = (nodes[0] + 4 * nodes[1] + nodes[2]) / 6
    return factors_of(mean * ways, mean**2, ways**2)


def test_a_quadratics_path_splits_by_block_as_its_closed_form() -> None:
    """½θᵀHθ with H = [[1, .8], [.8, 1]], first along one coordinate and then along the other.

    The blocks' parts are ½ and .8 + ½; the straight chord has the right sum and splits .9 and .9.
    """
    hessian = np.array([[1.0, 0.8], [0.8, 1.0]])
    corner = [np.array(p, dtype=float) for p in ([0, 0], [1, 0], [1, 1])]
    by_block = simpson(corner, hessian).integral.sum(axis=0)
    np.testing.assert_allclose(by_block, [0.5, 1.3], atol=1e-12)
    chord = simpson([corner[0], corner[2]], hessian).integral.sum(axis=0)
    np.testing.assert_allclose(chord, [0.9, 0.9], atol=1e-12)
    whole = 0.5 * corner[2] @ hessian @ corner[2]
    assert by_block.sum() == pytest.approx(whole)
    assert chord.sum() == pytest.approx(whole)


def test_a_sign_that_changes_with_half_the_segments_is_none() -> None:
    fine, coarse = np.array([1.0, -1.0, 0.0]), np.array([0.1, 1.0, 1.0])
    assert signs_agree(fine, coarse).tolist() == [True, False, False]


def shares(*steps: int) -> list[Fraction]:
    return [Fraction(step, steps[-1]) for step in steps]


def test_arms_of_equal_steps_pair_step_by_step() -> None:
    points, apart = paired_points([shares(0, 1, 4, 8), shares(0, 1, 4, 8)], most=32)
    assert points == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert apart == 0


def test_a_longer_stage_pairs_by_share() -> None:
    points, apart = paired_points([shares(0, 2, 4, 8), shares(0, 1, 3, 6, 9, 12)], most=32)
    assert points == [[0, 1, 2, 3], [0, 2, 3, 5]]
    assert apart == 0
    points, apart = paired_points([shares(0, 2, 4, 8), shares(0, 1, 5, 7, 12)], most=32)
    assert points == [[0, 1, 2, 3], [0, 1, 2, 4]]
    assert apart == Fraction(1, 4) - Fraction(1, 12)


def test_points_that_fall_together_are_taken_once_and_the_ends_always_pair() -> None:
    points, _ = paired_points([shares(0, 1, 2, 3, 100), shares(0, 50, 98, 99, 100)], most=32)
    assert [p[0] for p in points] == [0, 0]
    assert [p[-1] for p in points] == [4, 4]
    assert all((np.diff(p) > 0).all() for p in points)


def test_a_long_path_is_thinned_evenly() -> None:
    points, _ = paired_points([shares(*range(81))], most=16)
    assert points == [list(range(0, 81, 5))]
    with pytest.raises(ValueError, match="two points"):
        paired_points([[Fraction(0)]], most=4)
