"""Ranks and angles from Gram matrices, against explicit vectors, scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from geomix.measures.cosine import Floats
from geomix.measures.subspace import (
    effective_rank,
    overlap,
    participation_ratio,
    principal_angles,
    random_least_angle,
    random_overlap,
    rank_of,
    spectrum,
)


def gram(x: Floats) -> Floats:
    return np.asarray(x @ x.T)


def test_equal_orthogonal_directions_count_one_each() -> None:
    x = np.repeat(np.eye(4, 9), 3, axis=0)  # twelve examples in four directions
    for measure in (effective_rank, participation_ratio):
        assert measure(gram(x)) == pytest.approx(4)
        assert measure(gram(np.ones((5, 3)))) == pytest.approx(1)
        np.testing.assert_allclose(measure(np.stack([gram(x), gram(7 * x)])), [4, 4])
        assert np.isnan(measure(np.zeros((3, 3))))


def test_unequal_directions_by_hand() -> None:
    """Lengths 3 and 1: shares ¾, ¼ of the entropy; squares 9 and 1: 100 / 82."""
    block = gram(np.diag([3.0, 1.0, 0.0]))
    entropy = 0.75 * np.log(4 / 3) + 0.25 * np.log(4)
    assert effective_rank(block) == pytest.approx(np.exp(entropy), rel=1e-12)
    assert participation_ratio(block) == pytest.approx(100 / 82, rel=1e-12)


def test_the_spectrum_is_that_of_the_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(7, 30))
    expected = np.linalg.svd(x, compute_uv=False) ** 2
    np.testing.assert_allclose(spectrum(gram(x)), expected, rtol=1e-10)
    assert spectrum(gram(np.diag([1.0, 1e-2, 1e-4])))[2] == 0  # 1e-8 of the largest is rounding


def test_how_many_directions_hold_a_share() -> None:
    values = np.array([5.0, 3.0, 1.0, 1.0, 0.0])
    assert [rank_of(values, share) for share in (0.4, 0.5, 0.51, 0.8, 0.81, 0.95, 1.0)] == [
        *(1, 1, 2, 2, 3, 4, 4)
    ]
    assert rank_of(np.array([0.7, 0.2, 0.1]), 0.9) == 2  # though 0.7 + 0.2 is less in float64
    assert rank_of(np.zeros(3)) == 0


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5])
def test_angles_are_scipys(share: float) -> None:
    """Oracle: singular vectors of the explicit gradients, given to scipy."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(13, 40)) @ np.diag(np.linspace(2, 0.1, 40))
    first, second = np.arange(5), np.arange(5, 13)
    bases = []
    for at in (first, second):
        _, values, rows = np.linalg.svd(x[at], full_matrices=False)
        k = 1 + int(np.argmax(np.cumsum(values**2) / (values**2).sum() >= share - 1e-12))
        bases.append(rows[:k].T)
    expected = np.sort(subspace_angles(*bases))
    found = principal_angles(gram(x), first, second, share)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    back = principal_angles(gram(x), second, first, share)
    np.testing.assert_allclose(back, expected, atol=1e-10)
    assert overlap(found) == pytest.approx(np.mean(np.cos(expected) ** 2))


def test_planted_angles() -> None:
    """A shared direction, one turned by 30°, one apart; redundant examples add none."""
    turned = np.array([[1, 0, 0], [0, np.sqrt(0.75), 0], [0, 0.5, 0], [0, 0, 1.0]]).T
    x = np.concatenate([np.eye(2, 4), np.ones((1, 2)) @ np.eye(2, 4), turned, 2 * turned])
    found = np.degrees(principal_angles(gram(x), np.arange(3), np.arange(3, 9), share=1.0))
    np.testing.assert_allclose(found, [0, 30], atol=1e-5)


def test_no_angles_with_a_gradient_of_zero() -> None:
    x = np.concatenate([np.zeros((2, 4)), np.eye(2, 4)])
    found = principal_angles(gram(x), np.arange(2), np.arange(2, 4))
    assert found.shape == (0,)
    assert np.isnan(overlap(found))


@pytest.mark.parametrize(("one", "other", "size"), [(10, 10, 300), (6, 6, 200), (1, 20, 400)])
def test_random_subspaces(one: int, other: int, size: int) -> None:
    """Simulated: the mean squared cosine is exact, the smallest angle the limiting law's."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):
        angles = subspace_angles(rng.normal(size=(size, one)), rng.normal(size=(size, other)))
        found.append((np.mean(np.cos(angles) ** 2), angles.min()))
    mean, least = np.mean(found, axis=0)
    assert mean == pytest.approx(random_overlap(one, other, size), rel=0.05)
    assert np.degrees(least - random_least_angle(one, other, size)) == pytest.approx(2, abs=3)


def test_subspaces_that_fill_the_space_share_a_direction() -> None:
    assert random_least_angle(6, 6, 10) == 0.0
    assert random_least_angle(1, 1, 10**9) == pytest.approx(np.pi / 2, abs=1e-4)
