"""The gradient of a dataset's mean loss: one place, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch, Reduction, chunks, collate, token_weights
from geomix.data.example import TokenisedExample
from geomix.model.loss import weighted_loss

Forward = Callable[[Tensor, Tensor], Tensor]
"""`(ids (n, t), mask (n, t)) → logits (n, t, vocabulary)`."""


def plain_forward(model: nn.Module) -> Forward:
    """The model's own forward pass, as every caller runs it."""

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        # use_cache=False: packed or padded rows must never see a key-value cache.
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits

    return forward


def batches_of(
    examples: Sequence[TokenisedExample],
    reduction: Reduction,
    batch_size: int,
    pad_id: int,
    device: torch.device,
) -> Iterator[Batch]:
    """The set in batches whose weights are those of the whole set's mean loss."""
    weights = token_weights(examples, reduction)
    pairs = list(zip(examples, weights, strict=True))
    for part in chunks(pairs, batch_size):
        yield collate([e for e, _ in part], [w for _, w in part], pad_id).to(device)


def backward_over(forward: Forward, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """Add the gradient of the batches' summed loss to every parameter's `.grad`.

    Yields, after each backward pass, the batch and its detached logits `(n, t, vocabulary)`, so
    that a caller can read verdicts or captured activations without a second pass.
    """
    for batch in batches:
        logits = forward(batch.ids, batch.mask)
        # Not Tensor.backward(): nnsight replaces that method for the whole process.
        torch.autograd.backward(weighted_loss(logits, batch))
        yield batch, logits.detach()
