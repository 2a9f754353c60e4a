"""Inner products of gradients that are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomix.gradients import inner_products as gradients
from geomix.gradients.inner_products import adam_metric, inner_products, products_with


@pytest.mark.parametrize("chunk", [1, 7, 24, 1000])
def test_chunks_do_not_change_the_sum(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_CACHED", chunk)
    draw = np.random.default_rng(0)
    given = [[draw.normal(size=(4, 6)), draw.normal(size=5)] for _ in range(3)]
    found = inner_products([[torch.tensor(g) for g in one] for one in given])
    expected = [[[np.vdot(a[m], b[m]) for b in given] for a in given] for m in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 24, 1000])
def test_chunks_do_not_change_adams_metric_or_the_products_with_updates(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_CACHED", chunk)
    draw = np.random.default_rng(0)
    given, second, moves = draw.normal(size=(3, 24)), draw.random(24), draw.normal(size=(2, 24))
    tensors = [[torch.tensor(g)] for g in given]
    found = inner_products(tensors, [adam_metric(torch.tensor(second), 1e-2)])
    expected = given @ np.diag(1 / (np.sqrt(second) + 1e-2)) @ given.T
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    updates = torch.tensor(moves)
    three = [*(tensor for (tensor,) in tensors[:2]), None]
    found = products_with(three, lambda start, end: updates[:, start:end], 24)
    np.testing.assert_allclose(found, np.stack([*(given[:2] @ moves.T), np.zeros(2)]), rtol=1e-12)


def test_half_precision_is_summed_in_float64() -> None:
    ones = torch.ones(1 << 12, dtype=torch.bfloat16)  # bfloat16 counts by ones only to 256
    assert inner_products([[ones], [ones]]).tolist() == [[[4096.0] * 2] * 2]


def test_a_missing_gradient_is_zero() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    found = inner_products([[one, None], [None, None], [two, one]])
    assert found[0].tolist() == [[5, 0, 11], [0, 0, 0], [11, 0, 25]]
    assert found[1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 5]]
