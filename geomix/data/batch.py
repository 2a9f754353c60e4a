"""Conversion of examples to rows of tokens, one or several a row, with target token weights."""

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
"""Largest share of the padded batch's tokens at which rows are packed: rows of one example need no
mask, and cost only padding."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples in right-padded rows, with the position from which each target token is predicted.

    A row holds one example or, packed, several. R rows of T tokens, P target tokens in all, those
    of the first example first.

    Attributes:
        ids: `(R, T)` int64.
        positions: `(R, T)` int64, index of each token in its example: where it returns to 0, the
            next example begins. Padding continues the count; it is never predicted from, and what
            follows a token does not affect it.
        rows: `(P,)` int64.
        columns: `(P,)` int64; entry p of the logits belongs to `ids[rows[p], columns[p]]`.
        targets: `(P,)` int64, the tokens to predict there.
        owners: `(P,)` int64, the example of each, from 0, ascending.
        weights: `(P,)` float64, the weight of each in the loss.
        examples: number of examples.
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
        """Return the same batch on another device."""
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
        """Sum `values` `(P,)` over each example's target tokens: `(examples,)` float64, CPU."""
        total = torch.zeros(self.examples, dtype=torch.float64)
        return total.index_add_(0, self.owners.cpu(), values.detach().to("cpu", torch.float64))


def token_weights(examples: Sequence[TokenisedExample], reduction: Reduction) -> list[float]:
    """Return each example's target token weight, such that the weighted sum is the mean loss.

    Over the given set, `token` weighs every target token 1/(all target tokens), `example` weighs
    those of example i by 1/(n · its target tokens). Either way the weights of all target tokens of
    the set sum to one (so a union's loss is a weighted mean).
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
    """Arrange examples in rows.

    Args:
        examples: at least one.
        weights: of each example's target tokens.
        pad_id: padding token on the right.
        width: rows may hold several examples up to this many tokens; None gives each its own row.
    """
    lengths = [len(example.ids) for example in examples]
    rows, filled = packed_rows(lengths, width)
    row_of, start_of = np.empty((2, len(lengths)), dtype=np.int64)
    last = np.empty((len(rows), 1), dtype=np.int64)  # start of each row's last example
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


def packed_rows(lengths: Sequence[int], width: int | None) -> tuple[list[list[int]], int]:
    """Return the rows as indices of a batch's examples, and their common length.

    Args:
        lengths: tokens of each example, at least one.
        width: as in `collate`.
    """
    rows = packed(lengths, width) if width else [[i] for i in range(len(lengths))]
    return rows, max(sum(lengths[i] for i in row) for row in rows)


def packed(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Assign examples to rows: best fit, the longest first; one a row where packing saves little.

    Args:
        lengths: tokens of each example.
        width: most tokens in a row; a longer example has its own row, and sets the width.

    Returns:
        Indices of the examples, row by row; each occurs in exactly one.
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
    """Pad each example of a batch with its end token, and let the padding carry loss.

    The paper's published code does so, whereas its text puts the loss on the target alone.

    Args:
        sources: the batch's examples by set name.
        longest: tokens up to which each is padded; None takes the longest of the batch.
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
    """Yield consecutive slices of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
