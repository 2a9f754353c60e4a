"""Lanczos, Hutch++ and the density against full decompositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from geomix.measures.definiteness import semidefinite
from geomix.measures.lanczos import extremes, lanczos, quadrature, random_start
from geomix.measures.trace import hutch_plus_plus

Floats = NDArray[np.float64]


def symmetric(size: int, seed: int = 0, values: Floats | None = None) -> Floats:
    """A matrix of given eigenvalues in random directions; by default like a loss's Hessian."""
    rng = np.random.default_rng(seed)
    if values is None:
        values = np.concatenate([rng.normal(0, 0.02, size - 8), [21, 9, 6, 3, -2.3, -1.1, -0.7, 1]])
    vectors: Floats = np.linalg.qr(rng.normal(size=(size, size)))[0]
    found: Floats = (vectors * values) @ vectors.T
    return found


def product_of(matrix: Floats, counted: list[int] | None = None) -> Callable[[Floats], Floats]:
    def product(x: Floats) -> Floats:
        if counted is not None:
            counted.append(1)
        found: Floats = matrix @ x
        return found

    return product


def start(size: int, dtype: Any = np.float64) -> Any:
    return random_start(size).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extremes_are_those_of_the_full_decomposition(dtype: Any) -> None:
    matrix, counted = symmetric(200), list[int]()
    expected = np.linalg.eigvalsh(matrix)
    found = extremes(product_of(matrix, counted), start(200, dtype), tolerance=1e-6)
    assert found.converged
    assert not found.full
    np.testing.assert_allclose(found.top.values, expected[::-1][:3], atol=1e-5)
    np.testing.assert_allclose(found.bottom.values, expected[:3], atol=1e-5)
    assert found.products == len(counted) < 40
    sparse = LinearOperator(matrix.shape, matvec=lambda x: matrix @ x, dtype=np.float64)
    theirs = eigsh(sparse, k=1, which="SA", v0=start(200), return_eigenvectors=False)
    assert found.bottom.value == pytest.approx(float(theirs[0]), abs=1e-5)


@pytest.mark.parametrize("most", [4, 7, 10, 15])
def test_an_eigenvalue_lies_within_the_residual(most: int) -> None:
    """Converged or not: that is what makes a negative Ritz value a proof."""
    for seed in range(5):
        matrix = symmetric(120, seed, np.random.default_rng(seed).normal(size=120))
        expected = np.linalg.eigvalsh(matrix)
        found = extremes(product_of(matrix), start(120), most=most)
        assert found.products == most
        assert not found.converged
        for end in (found.bottom, found.top):
            assert np.abs(expected - end.value).min() <= end.residual * (1 + 1e-9)
            assert end.residual == pytest.approx(end.residuals[0], rel=1e-6)
            assert np.linalg.norm(end.vector) == pytest.approx(1)
        assert expected[0] <= found.bottom.value
        assert found.top.value <= expected[-1]
        assert found.bottom.residual > 1e-3 * found.scale or found.top.residual > 1e-3 * found.scale


def test_a_small_matrix_is_decomposed_in_full() -> None:
    matrix = symmetric(12)
    found = extremes(product_of(matrix), start(12), most=12)
    assert found.full
    assert found.products == 12
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(found.bottom.values, expected[:3], atol=1e-12)
    np.testing.assert_allclose(found.top.values, expected[::-1][:3], atol=1e-12)
    with pytest.raises(ValueError, match="at least 3"):
        extremes(product_of(matrix), start(12), most=2)


def test_the_recurrence_ends_where_nothing_is_left() -> None:
    """A matrix of rank 3 has at most 4 different eigenvalues: so many products say all."""
    values = np.zeros(50)
    values[:3] = 5, 2, -1
    matrix = symmetric(50, 1, values)
    last = lanczos(product_of(matrix), start(50), lambda _: False)
    assert len(last.diagonal) == 4
    assert last.off[-1] == 0
    np.testing.assert_allclose(sorted(last.ritz()[0]), [-1, 0, 2, 5], atol=1e-10)
    found = extremes(product_of(matrix), start(50))
    assert [found.bottom.value, found.top.value] == pytest.approx([-1, 5])
    nothing = extremes(lambda x: 0 * x, start(50))
    assert (nothing.bottom.value, nothing.top.value, nothing.products) == (0, 0, 3)


def test_the_basis_stays_orthonormal() -> None:
    """Without reorthogonalisation it is lost once a Ritz value has converged."""
    last = lanczos(product_of(symmetric(150)), start(150), lambda found: len(found.basis) == 60)
    basis = np.stack(last.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(60), atol=1e-12)


def test_moments_of_the_density_are_traces() -> None:
    matrix = symmetric(150)
    found = quadrature(product_of(matrix), 150, starts=400, steps=8)
    assert found.products == 3200
    for power, truth in ((1, np.trace(matrix)), (2, np.trace(matrix @ matrix))):
        each = 150 * found.moments(power)
        error = each.std(ddof=1) / np.sqrt(len(each))
        assert abs(each.mean() - truth) < 4 * error
    one = random_start(150, 1) / np.sqrt(150)
    assert found.moments(1)[0] == pytest.approx(one @ matrix @ one)
    assert found.moments(2)[0] == pytest.approx(np.sum((matrix @ one) ** 2))
    assert found.moments(0) == pytest.approx(np.ones(400))


def test_a_density_counts_eigenvalues() -> None:
    """With as many steps as there are rows it is exact but for the start."""
    values = np.concatenate([np.full(90, 0.0), np.full(10, 4.0)])
    matrix = symmetric(100, 2, values)
    found = quadrature(product_of(matrix), 100, starts=60)
    assert found.share(3, 5).mean() == pytest.approx(0.1, abs=0.02)
    assert found.share(-1, 1).mean() == pytest.approx(0.9, abs=0.02)
    assert found.share(-1, 1) + found.share(1, 5) == pytest.approx(np.ones(60))


def test_the_trace_and_its_interval() -> None:
    """Over 60 seeds the 95 % interval holds the trace about as often as it says."""
    matrix, held, errors = symmetric(80), 0, []
    truth = float(np.trace(matrix))
    for seed in range(60):
        found = hutch_plus_plus(product_of(matrix), 80, seed=seed)
        held += abs(found.estimate - truth) <= found.half_width
        errors.append(found.estimate - truth)
        assert (found.products, found.starts) == (30, 10)
    assert held >= 50
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(60)
    plain = hutch_plus_plus(product_of(matrix), 80, starts=400, sketched=0)
    assert np.std(errors) < 0.2 * plain.half_width * np.sqrt(400 / 30), "the sketch is of use"
    small = hutch_plus_plus(product_of(symmetric(9)), 9)
    assert small.estimate == pytest.approx(float(np.trace(symmetric(9))), rel=1e-9)


def test_two_semidefinite_matrices_whose_symmetrised_product_is_not() -> None:
    """diag(1, .01) with ½[[1, 1], [1, 1]]: −0.101."""
    a, b = np.diag([1, 0.01]), np.array([[0.5, 0.5], [0.5, 0.5]])
    assert min(np.linalg.eigvalsh(a)) >= 0
    assert min(np.linalg.eigvalsh(b)) >= -1e-12
    found = extremes(lambda x: (a @ (b @ x) + b @ (a @ x)) / 2, start(2), most=5)
    assert found.bottom.value == pytest.approx(-0.10101, abs=1e-4)
    for matrix, expected in ((a, "supported"), (b, "supported"), ((a @ b + b @ a) / 2, "refuted")):
        ends = extremes(product_of(matrix), start(2), most=5)
        low, high = ends.bottom, ends.top
        bounds = {"residual": low.residual, "rounding": 1e-12}
        assert semidefinite(low.value, high.value, **bounds, full=ends.full) == expected


@pytest.mark.parametrize(
    ("low", "residual", "rounding", "full", "expected"),
    [
        (-2.3, 0.1, 0.01, False, "refuted"),
        (-2.3, 2.4, 0.01, False, "undetermined"),  # the residual reaches beyond 0
        (-2.3, 0.1, 2.3, False, "undetermined"),  # so does the rounding
        (-0.009, 0.0, 0.0, False, "undetermined"),  # counts as 0
        (-0.009, 0.0, 0.0, True, "supported"),
        (0.5, 0.01, 0.0, False, "undetermined"),  # there may be others
        (0.5, 0.0, 0.0, True, "supported"),
        (-0.011, 0.0, 0.0, True, "refuted"),
    ],
)
def test_the_rule(low: float, residual: float, rounding: float, full: bool, expected: str) -> None:
    found = semidefinite(low, 10.0, residual=residual, rounding=rounding, full=full)
    assert found == expected
