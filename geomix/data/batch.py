"""Examples into rows of tokens, one or several a row, and the weight of each target token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from geomix.data.example import IGNORED, TokenisedExample

Reduction = Literal["token", "example"]
"""`token`: mean over all target tokens; `example`: mean over examples of each one's token mean."""

WORTHWHILE = 0.85
"""Rows are packed where that leaves at most this share of the padded batch's tokens: rows of one
example need no mask, and pay for padding only."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples in right-padded rows, and where each of their target tokens is predicted from.

    A row holds one example or, packed, several. R rows of T tokens, P target tokens in all, those
    of the first example first.

    Attributes:
        ids: `(R, T)` int64.
        positions: `(R, T)` int64, place of each token in its example: where it falls back to 0, the
            next example begins. Padding counts on; it is never predicted from, and what stands
            after a token does not change it.
        rows: `(P,)` int64.
        columns: `(P,)` int64; entry p of the logits belongs to `ids[rows[p], columns[p]]`.
        targets: `(P,)` int64, the tokens that are to follow there.
        owners: `(P,)` int64, whose they are, from 0, ascending.
        weights: `(P,)` float64, what each weighs in the loss.
        examples: how many there are.
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owners: Tensor
    weights: Tensor
    examples: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.ids.to(device),
            self.positions.to(device),
            self.rows.to(device),
            self.columns.to(device),
            self.targets.to(device),
            self.owners.to(device),
            self.weights.to(device),
            self.examples,
        )

    def per_example(self, values: Tensor) -> Tensor:
        """Sum of `values` `(P,)` over each example's target tokens: `(examples,)` float64, CPU."""
        total = torch.zeros(self.examples, dtype=torch.float64)
        return total.index_add_(0, self.owners.cpu(), values.detach().to("cpu", torch.float64))


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


def collate(
    examples: Sequence[TokenisedExample],
    weights: Sequence[float],
    pad_id: int,
    width: int | None = None,
) -> Batch:
    """Lay examples out in rows.

    Args:
        examples: at least one.
        weights: of each one's target tokens.
        pad_id: fills the rows on the right.
        width: rows may hold several examples up to this many tokens; None gives each its own row.
    """
    lengths = [len(example.ids) for example in examples]
    rows, filled = laid_out(lengths, width)
    row_of, start_of = np.empty((2, len(lengths)), dtype=np.int64)
    last = np.empty((len(rows), 1), dtype=np.int64)  # where each row's last example starts
    for number, members in enumerate(rows):
        starts = list(accumulate((lengths[i] for i in members), initial=0))
        row_of[members], start_of[members] = number, starts[:-1]
        last[number] = starts[-2]
    # Every token of the batch, those of the first example first.
    tokens = sum(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    start = start_of[owner]
    first = np.cumsum([0, *lengths[:-1]])
    row, column = row_of[owner], start + np.arange(tokens) - first[owner]
    ids = np.full((len(rows), filled), pad_id, dtype=np.int64)
    ids[row, column] = np.fromiter(chain.from_iterable(e.ids for e in examples), np.int64, tokens)
    begins = np.repeat(last, filled, axis=1)
    begins[row, column] = start
    labels = np.fromiter(chain.from_iterable(e.labels for e in examples), np.int64, tokens)
    predicted = labels != IGNORED
    owner = owner[predicted]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(np.arange(filled) - begins),
        torch.from_numpy(row[predicted]),
        torch.from_numpy(column[predicted] - 1),
        torch.from_numpy(labels[predicted]),
        torch.from_numpy(owner),
        torch.from_numpy(np.asarray(weights, dtype=np.float64)[owner]),
        len(lengths),
    )


def laid_out(lengths: Sequence[int], width: int | None) -> tuple[list[list[int]], int]:
    """The rows of a batch, as indices of its examples, and the tokens of each, padding included.

    Args:
        lengths: tokens of each example, at least one.
        width: as in `collate`.
    """
    rows = packed(lengths, width) if width else [[i] for i in range(len(lengths))]
    return rows, max(sum(lengths[i] for i in row) for row in rows)


def packed(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Which examples share a row: best fit, the longest first; one a row where that costs little.

    Args:
        lengths: tokens of each example.
        width: most tokens in a row; a longer example has a row of its own, and sets the width.

    Returns:
        Indices of the examples, row by row; each stands in exactly one.
    """
    longest = max(lengths)
    width = max(width, longest)
    spare: dict[int, list[list[int]]] = {}  # rows by the tokens that still fit
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[i]
        left = next((s for s in range(length, width + 1) if spare.get(s)), None)
        if left is None:
            left = width
            rows.append([])
            spare.setdefault(left, []).append(rows[-1])
        members = spare[left].pop()
        members.append(i)
        spare.setdefault(left - length, []).append(members)
    fullest = max(sum(lengths[i] for i in row) for row in rows)
    if len(rows) * fullest > WORTHWHILE * len(lengths) * longest:
        return [[i] for i in range(len(lengths))]
    return rows


def with_padding_loss(
    sources: Mapping[str, Sequence[TokenisedExample]], longest: int | None = None
) -> dict[str, list[TokenisedExample]]:
    """Fill each example of a batch with its end token, and let that carry loss.

    The paper's published code does so, where its text takes the loss on the target.

    Args:
        sources: the batch's examples by set name.
        longest: tokens up to which each is filled; None takes the longest of the batch.
    """
    if longest is None:
        longest = max((len(e.ids) for part in sources.values() for e in part), default=0)
    return {
        name: [
            TokenisedExample(e.ids + fill, e.labels + fill, e.text)
            for e in examples
            for fill in [e.ids[-1:] * (longest - len(e.ids))]
        ]
        for name, examples in sources.items()
    }


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
