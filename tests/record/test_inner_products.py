"""Inner products of gradients that are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomix.record import gradients
from geomix.record.gradients import inner_products


@pytest.mark.parametrize("chunk", [1, 7, 24, 1000])
def test_chunks_do_not_change_the_sum(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "CHUNK", chunk)
    draw = np.random.default_rng(0)
    given = [[draw.normal(size=(4, 6)), draw.normal(size=5)] for _ in range(3)]
    found = inner_products([[torch.tensor(g) for g in one] for one in given])
    expected = [[[np.vdot(a[m], b[m]) for b in given] for a in given] for m in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_half_precision_is_summed_in_float64() -> None:
    ones = torch.ones(1 << 12, dtype=torch.bfloat16)  # bfloat16 counts by ones only to 256
    assert inner_products([[ones], [ones]]).tolist() == [[[4096.0] * 2] * 2]


def test_a_missing_gradient_is_zero() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    found = inner_products([[one, None], [None, None], [two, one]])
    assert found[0].tolist() == [[5, 0, 11], [0, 0, 0], [11, 0, 25]]
    assert found[1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 5]]
