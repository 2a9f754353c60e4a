"""Random projections: what they are made of, and the variance of their inner products."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from geomix.measures.sketch import (
    Floats,
    Projection,
    inner_product_variance,
    matrix_shape,
    projection,
    signs,
)

DRAWS = 4000


def sketch(onto: Projection, value: Floats) -> Floats:
    found: Floats = onto.rows.double().numpy() @ value
    if onto.columns is not None:
        found = found @ onto.columns.double().numpy().T
    return found.ravel()


@pytest.mark.parametrize("shape", [(9, 6), (30,), (1, 40), (2, 3, 5)])
def test_unbiased_with_the_variance_of_the_formula(shape: tuple[int, ...]) -> None:
    """Simulation over seeds against the closed form, which uses no simulation."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=shape), draw.normal(size=shape)
    b += 0.7 * a
    if len(shape) > 1:
        a, b = (x.reshape(matrix_shape(shape)) for x in (a, b))
        a[0] *= 4  # far from isotropic: every term of the formula matters
    found = np.array(
        [
            np.dot(sketch(onto, a), sketch(onto, b))
            for onto in (projection(seed, "w", shape, 16) for seed in range(DRAWS))
        ]
    )
    sides = (16, None) if len(shape) == 1 else (4, 4)
    expected = inner_product_variance(a, b, *sides)
    assert abs(found.mean() - np.vdot(a, b)) < 4 * math.sqrt(expected / DRAWS)
    fourth = ((found - found.mean()) ** 4).mean() / found.var() ** 2
    assert abs(found.var() / expected - 1) < 4 * math.sqrt((fourth - 1) / DRAWS)


def test_variance_of_every_sign_of_a_small_case() -> None:
    """All 2^6 pairs of sign vectors u, v at k = 1, written out: the variance without a formula."""
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(3, 3)), draw.normal(size=(3, 3))
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    one, other = (np.einsum("ui,ij,vj->uv", corners, x, corners) for x in (a, b))
    products = one * other
    assert products.mean() == pytest.approx(np.vdot(a, b))
    assert products.var() == pytest.approx(inner_product_variance(a, b, 1, 1))
    # 2 × 1: the mean over two independent u at a common v
    pairs = (products[:, None, :] + products[None, :, :]) / 2
    assert pairs.var() == pytest.approx(inner_product_variance(a, b, 2, 1))
    assert pairs.var() == pytest.approx(inner_product_variance(a.T, b.T, 1, 2))


def test_signs_are_the_bits_of_shake_256() -> None:
    """Read off with integers: the projection can be made again in any language."""
    bits = int.from_bytes(hashlib.shake_256(b"0/w/3x5/rows").digest(2), "little")
    expected = [
        [(2 * (bits >> (5 * i + j) & 1) - 1) / math.sqrt(3) for j in range(5)] for i in range(3)
    ]
    torch.testing.assert_close(signs("0/w/3x5/rows", 3, 5), torch.tensor(expected))


def test_each_seed_name_shape_and_side_has_its_own() -> None:
    some = [
        projection(*given, 64).rows
        for given in [
            (0, "w", (40, 40)),
            (1, "w", (40, 40)),
            (0, "v", (40, 40)),
            (0, "w", (40, 41)),
        ]
    ]
    columns = projection(0, "w", (40, 40), 64).columns
    assert columns is not None
    some.append(columns)
    for i, one in enumerate(some):
        for other in some[:i]:
            assert not torch.equal(one, other)
    again = projection(0, "w", (40, 40), 64)
    assert torch.equal(again.rows, some[0])


@pytest.mark.parametrize("entries", [0, 8, -4])
def test_a_sketch_is_square(entries: int) -> None:
    with pytest.raises(ValueError, match="not square"):
        projection(0, "w", (4, 4), entries)
