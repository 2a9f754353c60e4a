"""Owner of each token of a packed batch, and its vectors example by example.

Shapes: R rows of T tokens, P answer positions, B examples, t tokens of the longest example up to
the last token that it is predicted from (later ones have no gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomix.data.batch import Batch


@dataclass(frozen=True, slots=True)
class Placement:
    """Indices of each example's vectors among n of them.

    Attributes:
        owners: `(n,)` int64, the example of each; −1 for none.
        index: `(B, t)` int64, indices of each example's vectors.
        valid: `(B, t)` bool; False where an example has fewer.
        rows: `(R, T)` if each row is one example, in order, so that no gathering is needed.
    """

    owners: Tensor
    index: Tensor
    valid: Tensor
    rows: tuple[int, int] | None = None

    @staticmethod
    def of(owners: Tensor, examples: int, rows: tuple[int, int] | None = None) -> Placement:
        """Index n vectors by example.

        Args:
            owners: `(n,)` int64, −1 for none.
            examples: B.
            rows: as the attribute.
        """
        order = torch.argsort(owners, stable=True)
        order = order[(owners < 0).sum() :]
        mine = owners[order]
        counts = torch.bincount(mine, minlength=examples)
        position = torch.arange(len(mine), device=owners.device) - (counts.cumsum(0) - counts)[mine]
        width = int(counts.max()) if len(mine) else 0
        index = torch.zeros(examples, width, dtype=torch.int64, device=owners.device)
        valid = torch.zeros_like(index, dtype=torch.bool)
        index[mine, position] = order
        valid[mine, position] = True
        return Placement(owners, index, valid, rows)

    def inputs(self, values: Tensor) -> Tensor:
        """Arrange `(n, m, d)` by example, `(B, t·m, d)`; arbitrary where an example has fewer."""
        if self.rows is not None:
            by_row = values.view(*self.rows, *values.shape[1:])
            return by_row[:, : self.index.shape[1]].flatten(1, 2)
        return values[self.index].flatten(1, 2)

    def gradients(self, values: Tensor) -> Tensor:
        """Arrange `(n, m, d)` by example, `(B, t·m, d)`; 0 where an example has fewer."""
        if self.rows is not None:  # after its answer an example's gradients are already zero
            return self.inputs(values)
        return self.inputs(values) * self.valid.repeat_interleave(values.shape[1], 1)[..., None]


def tokens_of(batch: Batch) -> Placement:
    """Return the placement of all tokens `(R·T,)`, row after row."""
    segment = (batch.positions == 0).flatten().cumsum(0) - 1
    count = int(segment[-1]) + 1
    predicted = batch.rows * batch.ids.shape[1] + batch.columns  # index of each among all tokens
    whose = torch.full((count,), -1, dtype=torch.int64, device=segment.device)
    whose[segment[predicted]] = batch.owners
    last = torch.full_like(whose, -1)
    last.scatter_reduce_(0, segment[predicted], predicted, "amax")
    position = torch.arange(segment.numel(), device=segment.device)
    owners = torch.where(position <= last[segment], whose[segment], -1)
    alone = count == len(batch.ids) and torch.equal(
        whose, torch.arange(batch.examples, device=whose.device)
    )
    shape = (batch.ids.shape[0], batch.ids.shape[1])
    return Placement.of(owners, batch.examples, shape if alone else None)


def answers_of(batch: Batch) -> Placement:
    """Return the placement of the positions that the output head sees, `(P,)`."""
    return Placement.of(batch.owners, batch.examples)
