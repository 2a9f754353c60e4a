"""Directions in a plane, against explicit vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.measures.plane import in_plane


def gram(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors @ vectors.T)


@pytest.mark.parametrize("seed", range(5))
def test_shadows_are_those_of_explicit_vectors(seed: int) -> None:
    """Independent: QR of the vectors themselves, of many lengths; no inner product is used."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, 9)) * np.array([[1e-5], [1e3], [1.0], [0.3]])
    basis, upper = np.linalg.qr(vectors[:2].T)
    basis = basis * np.sign(np.diagonal(upper))  # along the first, on the second one's side
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = in_plane(gram(vectors))
    assert found.dimensions == 2
    np.testing.assert_allclose(found.coordinates, units @ basis, atol=1e-12)
    np.testing.assert_allclose(found.shares, np.linalg.norm(units @ basis, axis=1), atol=1e-12)
    np.testing.assert_allclose(found.shares[:2], 1, atol=1e-12)
    assert found.shares[2:].max() < 0.99


def test_known_triangle() -> None:
    """By hand: the second at 120°, a third at 45° above the plane, a fourth outside of it."""
    root = np.sqrt(3) / 2
    vectors = np.array([[2, 0, 0], [-0.5, root, 0], [0, 1, 1], [0, 0, 7.0]])
    found = in_plane(gram(vectors))
    expected = [[1, 0], [-0.5, root], [0, np.sqrt(0.5)], [0, 0]]
    assert found.coordinates == pytest.approx(np.array(expected), abs=1e-15)
    np.testing.assert_allclose(found.shares, [1, 1, np.sqrt(0.5), 0], atol=1e-15)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_parallel_directions_leave_a_line(sign: float) -> None:
    a, m = np.array([1.0, 2.0, 2.0]), np.array([3.0, 0.0, 0.0])
    found = in_plane(gram(np.stack([a, 0.1 * sign * a, m])))
    assert found.dimensions == 1
    expected = np.array([[1, 0], [sign, 0], [1 / 3, 0]])
    np.testing.assert_allclose(found.coordinates, expected, atol=1e-12)
    assert found.shares[2] == pytest.approx(1 / 3)


def test_a_second_direction_that_is_zero_or_unknown_leaves_a_line() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    for inner in (gram(vectors), np.where(np.eye(3) == 1, gram(vectors), np.nan)):
        found = in_plane(inner)
        assert found.dimensions == 1
        assert np.isnan(found.coordinates[1]).all()
        assert np.isnan(found.shares[1])
    assert in_plane(gram(vectors)).shares[2] == pytest.approx(np.sqrt(0.5))


def test_without_a_first_direction_there_is_nothing() -> None:
    found = in_plane(gram(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])))
    assert found.dimensions == 0
    assert np.isnan(found.coordinates).all()
    assert np.isnan(found.shares).all()


def test_a_further_direction_that_is_zero_has_no_shadow() -> None:
    found = in_plane(gram(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])))
    assert found.dimensions == 2
    assert np.isnan(found.shares[2])
    np.testing.assert_allclose(found.coordinates[1], [np.sqrt(0.5), np.sqrt(0.5)])
