"""Test of whether a model keeps the examples of a packed row apart."""

from __future__ import annotations

import torch
from torch import nn

from geomix.data.batch import Batch
from geomix.models.forward import plain_forward, takes_positions

_APART = {torch.float32: 1e-4, torch.float64: 1e-4}
_APART_HALF = 3e-2
"""Share of the largest logit by which an example alone may differ from itself in a packed row: some
units of rounding. A neighbour that is attended to changes it by 0.1 and more, even in a random
model."""


@torch.no_grad()
def packs(model: nn.Module, first: int, last: int) -> bool:
    """Return whether an example's logits are the same alone and after others in one row.

    Models without positions (ALiBi, recurrent ones) see a row as one text, and so do those whose
    attention ignores where positions restart.

    Args:
        model: a causal LM in evaluation mode.
        first: an ordinary token id.
        last: another one.
    """
    if not takes_positions(model):
        return False
    forward = plain_forward(model)
    device = next(model.parameters()).device
    mine = [first, last, last, first]
    alone = forward(_row([], mine).to(device)).float()
    most = alone.abs().max() * tolerance(model)
    behind = [forward(_row([t] * 3, mine).to(device)).float() for t in (first, last)]
    return all(bool((one - alone).abs().max() <= most) for one in behind)


def tolerance(model: nn.Module) -> float:
    """Return the share of the largest logit by which rounding may change a text's logits."""
    return _APART.get(next(model.parameters()).dtype, _APART_HALF)


def _row(neighbour: list[int], mine: list[int]) -> Batch:
    """Build one row of two examples; logits are computed for the second."""
    start, n = len(neighbour), len(mine)
    return Batch(
        ids=torch.tensor([neighbour + mine]),
        positions=torch.tensor([[*range(start), *range(n)]]),
        rows=torch.zeros(n, dtype=torch.int64),
        columns=torch.arange(start, start + n),
        targets=torch.tensor(mine),
        owners=torch.zeros(n, dtype=torch.int64),
        weights=torch.ones(n, dtype=torch.float64),
        examples=1,
    )
