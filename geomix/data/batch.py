"""Examples into padded tensors, and the weight that each target token has in a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from geomix.data.example import IGNORED, TokenisedExample

Reduction = Literal["token", "example"]
"""`token`: mean over all target tokens; `example`: mean over examples of each one's token mean."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded examples.

    Attributes:
        ids: `(n, t)` int64.
        mask: `(n, t)` int64, 1 on real tokens, 0 on padding.
        labels: `(n, t)` int64, `IGNORED` where no loss is carried, padding included.
        weights: `(n,)` float64, weight of every target token of each example in the loss.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        parts = (self.ids, self.mask, self.labels, self.weights)
        return Batch(*(part.to(device) for part in parts))


def token_weights(examples: Sequence[TokenisedExample], reduction: Reduction) -> list[float]:
    """Weight of each target token, by example, such that the weighted sum is the mean loss.

    Over the set that is given: `token` weighs every target token 1/(all target tokens), `example`
    weighs those of example i by 1/(n · its target tokens). Either way the weights of all target
    tokens of the set sum to one (theory: a union is a weighted mean).
    """
    counts = [example.target_tokens for example in examples]
    if reduction == "token":
        return [1.0 / sum(counts)] * len(counts)
    return [1.0 / (len(counts) * count) for count in counts]


def collate(examples: Sequence[TokenisedExample], weights: Sequence[float], pad_id: int) -> Batch:
    """Pad examples on the right to the longest of them."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    labels = torch.full((len(examples), width), IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        mask[row, :length] = 1
        labels[row, :length] = torch.tensor(example.labels)
    return Batch(ids, mask, labels, torch.tensor(weights, dtype=torch.float64))


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
