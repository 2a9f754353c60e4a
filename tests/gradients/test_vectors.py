"""Vectors by parameter against flat numpy arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geomix.gradients.vectors import (
    by_group,
    combine,
    cosine,
    dot,
    dots,
    from_array,
    minus,
    norm,
    restricted,
    to_array,
    unit,
)


def drawn(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (5,), "c": (2, 2)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_products_and_norms_are_those_of_flat_arrays() -> None:
    u, v = drawn(0), drawn(1)
    x, y = to_array(u), to_array(v)
    assert dot(u, v) == pytest.approx(x @ y, rel=1e-12)
    assert norm(u) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert cosine(u, v) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert norm(unit(u)) == pytest.approx(1, abs=1e-6)
    assert dot(restricted(u, ["b"]), v) == pytest.approx(dots(u, v)["b"])


def test_inner_products_add_up_in_float64() -> None:
    """In float32 the small terms would be lost."""
    v = {"a": torch.cat([torch.tensor([1e4]), torch.full((10_000,), 1e-2)])}
    assert dot(v, v) == pytest.approx(1e8 + 1, rel=1e-10)


def test_sums() -> None:
    u, v = drawn(0), drawn(1)
    found = combine([(2.0, u), (-0.5, v), (3.0, restricted(u, ["c"]))])
    expected = {n: 2 * u[n] - 0.5 * v[n] + (3 * u[n] if n == "c" else 0) for n in u}
    assert all(torch.allclose(found[n], expected[n]) for n in u)
    assert all(torch.equal(minus(u, v)[n], u[n] - v[n]) for n in u)
    assert torch.equal(u["a"], drawn(0)["a"]), "the terms stay as they are"
    sums = by_group({"a": 1.0, "b": 2.0, "c": 4.0}, {"a": "x", "b": "y", "c": "x"})
    assert sums == {"x": 5.0, "y": 2.0}
    assert list(sums) == ["x", "y"]


def test_arrays_there_and_back() -> None:
    u = drawn(0)
    back = from_array(to_array(u), u)
    assert all(torch.equal(back[n], u[n]) and back[n].dtype == u[n].dtype for n in u)
    order = to_array(u, ["c", "a", "b"])
    assert np.array_equal(order[:4], u["c"].reshape(-1).double().numpy())


def test_nothing_has_no_direction() -> None:
    none = {"a": torch.zeros(3)}
    assert math.isnan(cosine(none, {"a": torch.ones(3)}))
    with pytest.raises(ValueError, match="no direction"):
        unit(none)
