"""Angles from inner products, against vectors that are at hand."""

from __future__ import annotations

import numpy as np
import pytest

from geomix.measures.cosine import cosines, group_inner_products, norms


def gradients(seed: int = 0) -> list[np.ndarray]:
    """Three sets' gradients in each of five parameter tensors: `(set, size)` each."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, size)) for size in (4, 7, 1, 9, 2)]


def gram(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors @ vectors.T)


def test_groups_are_the_concatenated_vectors() -> None:
    """Independent: a group's tensors are concatenated; numpy's dot and norm give the angle."""
    tensors = gradients()
    groups = np.array([1, 0, 1, 2, 0])
    inner = group_inner_products(np.stack([gram(t) for t in tensors]), groups)
    assert inner.shape == (3, 3, 3)
    for group in range(3):
        whole = np.concatenate([t for t, g in zip(tensors, groups, strict=True) if g == group], 1)
        for i in range(3):
            assert norms(inner)[group, i] == pytest.approx(np.linalg.norm(whole[i]), rel=1e-14)
            for j in range(3):
                a, b = whole[i], whole[j]
                expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                assert cosines(inner)[group, i, j] == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("planted", [-1.0, 0.0, 1.0, -0.5])
def test_planted_angle_whatever_the_lengths(planted: float) -> None:
    a = np.array([3.0, 0.0])
    b = 1e-6 * np.array([planted, np.sqrt(1 - planted**2)])
    cosine = cosines(gram(np.stack([a, b])))
    assert cosine[0, 1] == pytest.approx(planted, abs=1e-15)
    assert cosine[1, 0] == cosine[0, 1]
    np.testing.assert_allclose(np.diagonal(cosine), 1.0, rtol=0, atol=1e-15)


def test_no_angle_with_a_gradient_of_zero() -> None:
    inner = gram(np.array([[1.0, 2.0], [0.0, 0.0]]))
    assert np.isnan(cosines(inner)[0, 1])
    assert np.isnan(cosines(inner)[1, 1])
    assert cosines(inner)[0, 0] == pytest.approx(1.0)
    assert norms(inner)[1] == 0.0


def test_tiny_gradients_do_not_underflow() -> None:
    """The product of two squared norms of 1e-90 is below the smallest float64."""
    vectors = 1e-90 * np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
    cosine = cosines(gram(vectors))
    assert cosine[0, 1] == pytest.approx(0.0, abs=1e-15)
    assert cosine[0, 2] == pytest.approx(np.sqrt(0.5))


def test_what_is_not_finite_stays_undefined() -> None:
    inner = np.array([[np.inf, 1.0], [1.0, 4.0]])
    assert np.isnan(cosines(inner)[0, 1])
    assert np.isnan(cosines(np.full((2, 2), np.nan))).all()


def test_only_rounding_is_clipped() -> None:
    assert cosines(np.array([[1.0, 1 + 1e-9], [1 + 1e-9, 1.0]]))[0, 1] == 1.0
    with pytest.raises(ValueError, match="exceeds 1"):
        cosines(np.array([[1.0, 1.01], [1.01, 1.0]]))
    with pytest.raises(ValueError, match="negative"):
        norms(np.array([[-1.0, 0.0], [0.0, 1.0]]))
