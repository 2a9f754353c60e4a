"""Models that answer as a test needs, independent of any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch

MARGIN = 4.0
"""By how many logits each token that is taught beats every other one: far above rounding."""


def teach(model: Any, sequences: Sequence[tuple[Sequence[int], int]], most: int = 3000) -> None:
    """Train until the model continues each beginning as taught, by `MARGIN`.

    How many steps that takes depends on processor, threads and seed; that it holds does not.
    None of geomix's code is used.

    Args:
        model: a causal LM of transformers; its mode stays.
        sequences: token ids, and the index from which on they are taught, at least 1. No two may
            go on differently from the same beginning.
        most: optimiser steps after which the test fails.
    """
    width = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens, _ in sequences])
    place = torch.arange(width)
    lengths = torch.tensor([len(tokens) for tokens, _ in sequences])[:, None]
    starts = torch.tensor([start for _, start in sequences])[:, None]
    mask = (place < lengths).long()
    taught = ((place >= starts) & (place < lengths))[:, 1:]
    targets = ids[:, 1:][taught]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(most):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1][taught]
        if margin(logits.detach(), targets) >= MARGIN:
            return
        optimiser.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, targets))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    raise AssertionError(f"not learnt in {most} steps")


def margin(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """By how much the logit `(n, vocabulary)` of the targets `(n,)` beats the best other: least."""
    own = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -torch.inf).amax(dim=1)
    return float((own - others).min())


class Lookup(torch.nn.Module):
    """Says what a table has, with certainty, and anything else with equal chances.

    Args:
        table: the token that follows, by all of those before it.
        config: of the model whose place it takes.
    """

    def __init__(self, table: Mapping[tuple[int, ...], int], config: Any) -> None:
        super().__init__()
        self.table, self.config = table, config
        self.head = torch.nn.Linear(config.vocab_size, config.vocab_size, bias=False)
        torch.nn.init.eye_(self.head.weight)

    @staticmethod
    def of(sequences: Sequence[tuple[Sequence[int], int]], config: Any) -> Lookup:
        """Knows sequences from an index on, as `teach` takes them."""
        table = {tuple(ids[:i]): ids[i] for ids, first in sequences for i in range(first, len(ids))}
        return Lookup(table, config)

    def get_output_embeddings(self) -> torch.nn.Module:
        """The head."""
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        """The logits `(rows, tokens, vocabulary)`."""
        hidden = torch.zeros((*input_ids.shape, self.config.vocab_size))
        for row, ids in enumerate(input_ids.tolist()):
            for column in range(len(ids)):
                if (known := self.table.get(tuple(ids[: column + 1]))) is not None:
                    hidden[row, column, known] = 1e4
        return SimpleNamespace(logits=self.head(hidden))
