"""KL divergence between two models' next-token distributions at every answer token of a set.

Contexts are the true answers (teacher forcing): the mean over them is not the divergence of the two
distributions of whole answers. Nothing is stored: both models read each batch, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomix.data.batch import Batch, chunks, collate
from geomix.data.example import TokenisedExample
from geomix.models.divergence import kl_divergence
from geomix.models.forward import plain_forward
from geomix.models.load import LoadedModel
from geomix.models.score import evaluating

Floats = NDArray[np.float64]

_ROWS = 256
"""Positions whose float64 distributions are in memory at a time, of each of two models."""


@dataclass(frozen=True, slots=True, eq=False)
class SetDivergence:
    """Divergence of a model from a reference on each example of a set.

    Attributes:
        forward: Σ_t KL(p_reference ‖ p) over the answer tokens of each example, nats, `(E,)`.
        reverse: Σ_t KL(p ‖ p_reference), nats, `(E,)`.
        tokens: answer tokens of each example, the end token included, `(E,)`.
    """

    forward: Floats
    reverse: Floats
    tokens: NDArray[np.int64]

    def per_token(self, direction: str) -> float:
        """Return the mean over all answer tokens, nats; `direction` is `forward` or `reverse`."""
        return float(self._of(direction).sum() / self.tokens.sum())

    def per_answer(self, direction: str) -> float:
        """Return the mean over answers of the sum over an answer's tokens, nats."""
        return float(self._of(direction).mean())

    def _of(self, direction: str) -> Floats:
        return {"forward": self.forward, "reverse": self.reverse}[direction]


def set_divergences(
    now: LoadedModel,
    references: Mapping[str, LoadedModel],
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None = None,
) -> dict[str, SetDivergence]:
    """Compare a model with each reference, over the whole vocabulary, in float64.

    Args:
        now: the model.
        references: by name, on the same device and with the same tokens.
        examples: of the set, at least one.
        batch_size: examples in a pass.
        width: of packed rows, see `geomix.data.batch.collate`.
    """
    sums: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in references}
    for part in chunks(examples, batch_size):
        batch = collate(part, [1.0] * len(part), now.pad_id, width).to(now.device)
        logits = _logits(now, batch)
        for name, reference in references.items():
            forward, reverse = divergences_of(_logits(reference, batch), logits)
            sums[name].append((batch.per_example(forward), batch.per_example(reverse)))
    tokens = np.array([example.target_tokens for example in examples], dtype=np.int64)
    found = {}
    for name, parts in sums.items():
        columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
        found[name] = SetDivergence(columns[0], columns[1], tokens)
    return found


def divergences_of(reference: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(p_reference ‖ p_now) and KL(p_now ‖ p_reference) of each position.

    Args:
        reference: logits `(P, V)`, of any precision.
        now: likewise.

    Returns:
        `(P,)` and `(P,)` float64, nats: 0 to the bit where the logits are equal.
    """
    pairs = []
    for one, other in zip(torch.split(reference, _ROWS), torch.split(now, _ROWS), strict=True):
        p, q = (logits.double().log_softmax(dim=-1) for logits in (one, other))
        pairs.append((kl_divergence(p, q), kl_divergence(q, p)))
    forward, reverse = zip(*pairs, strict=True)
    return torch.cat(forward), torch.cat(reverse)


def _logits(loaded: LoadedModel, batch: Batch) -> Tensor:
    """Return logits of the batch's answer tokens `(P, V)`, in evaluation mode."""
    with evaluating(loaded.model), torch.no_grad():
        return plain_forward(loaded.model)(batch)
