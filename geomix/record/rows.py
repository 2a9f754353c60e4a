"""The record of a probe set, made batch by batch.

Shapes: P positions that predict a target token, L layers + 1, D features.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geomix.data.batch import Batch
from geomix.model.loss import all_correct, token_nll
from geomix.record.capture import Capture
from geomix.record.snapshot import ProbeRecord


@dataclass
class Rows:
    """The record of a probe set, batch by batch, on the CPU."""

    activations_of: int | None
    losses: list[Tensor] = field(default_factory=list)
    exact: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    activations: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def add(self, batch: Batch, logits: Tensor, capture: Capture) -> None:
        """Take a batch whose backward pass has run; `logits` are those of its target tokens."""
        counts = torch.bincount(batch.owners.cpu(), minlength=batch.examples)
        self.exact.append(all_correct(logits, batch))
        self.counts.append(counts)
        self.positions.append(batch.positions[batch.rows, batch.columns].cpu())
        self.targets.append(batch.targets.cpu())
        kept = batch.owners < self._left()
        if kept.any():
            where = (batch.rows[kept], batch.columns[kept])
            self.activations.append(_gather(capture.activations, where))
            self.gradients.append(_gather(capture.gradients, where))
        self.losses.append(batch.per_example(token_nll(logits, batch)) / counts)

    def _left(self) -> int:
        """How many of the next examples keep their activations."""
        done = sum(len(losses) for losses in self.losses)
        return sys.maxsize if self.activations_of is None else self.activations_of - done

    def joined(self) -> ProbeRecord:
        """The record of all batches."""
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat(self.counts).cumsum(0)])
        kept = bool(self.activations)
        return ProbeRecord(
            loss=torch.cat(self.losses).numpy(),
            exact=torch.cat(self.exact).numpy(),
            offsets=offsets.numpy(),
            positions=torch.cat(self.positions).numpy(),
            targets=torch.cat(self.targets).numpy(),
            activations=torch.cat(self.activations).numpy() if kept else None,
            gradients=torch.cat(self.gradients).numpy() if kept else None,
        )


def _gather(layers: Sequence[Tensor], where: tuple[Tensor, Tensor]) -> Tensor:
    """The chosen positions of layers + 1 tensors `(R, T, D)`: `(P, L, D)` float32 on the CPU."""
    return torch.stack([layer[where].to("cpu", torch.float32) for layer in layers], dim=1)
