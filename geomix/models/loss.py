"""The one loss: a weighted sum of the negative log-likelihoods of the target tokens.

Shapes: P target tokens of a batch, V the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from geomix.data.batch import Batch


def token_nll(logits: Tensor, batch: Batch) -> Tensor:
    """Return the negative log-likelihood of each target token, `(P,)`, in nats.

    Args:
        logits: `(P, V)` from a `Forward`; half precision is computed in float32.
        batch: the batch of these logits.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return functional.cross_entropy(logits, batch.targets, reduction="none")


def weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the batch's share of the mean loss with weights `batch.weights`; a scalar.

    Summed over the batches of a set, it is the set's mean loss, whatever the batch size.
    """
    nll = token_nll(logits, batch)
    return (nll * batch.weights.to(nll.dtype)).sum()


def correct_tokens(logits: Tensor, batch: Batch) -> Tensor:
    """Return whether each argmax is the target token: `(P,)` bool."""
    return logits.argmax(dim=-1) == batch.targets


def all_correct(logits: Tensor, batch: Batch) -> Tensor:
    """Return for each example whether the argmax is always the target: `(examples,)` bool, CPU."""
    return batch.per_example(~correct_tokens(logits, batch)) == 0
