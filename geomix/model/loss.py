"""The one loss: a weighted sum of the negative log-likelihoods of the target tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from geomix.data.batch import Batch
from geomix.data.example import IGNORED


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, in nats.

    Args:
        logits: `(n, t, vocabulary)`; half precision is computed in float32.
        labels: `(n, t)` int64; `labels[:, i]` is predicted from position `i - 1`.

    Returns:
        `(n, t - 1)`: entry `[:, i]` belongs to `labels[:, i + 1]`, zero where that is `IGNORED`.
    """
    following = labels[:, 1:]
    carries = following != IGNORED
    chosen = logits[:, :-1][carries]  # no softmax where no loss is carried
    if chosen.dtype in (torch.bfloat16, torch.float16):
        chosen = chosen.float()
    nll = functional.cross_entropy(chosen, following[carries], reduction="none")
    return nll.new_zeros(following.shape).masked_scatter(carries, nll)


def weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    """The batch's share of the mean loss whose weights `batch.weights` are; a scalar.

    Sums over the batches of a set to the set's mean loss, whatever the batch size.
    """
    per_example = token_nll(logits, batch.labels).sum(dim=1)
    return (per_example * batch.weights.to(per_example.dtype)).sum()


def correct_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Where the argmax is the label: `(n, t - 1)` bool, true also where no loss is carried."""
    predicted = logits[:, :-1].argmax(dim=-1)
    return (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
