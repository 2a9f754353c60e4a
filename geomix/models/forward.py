"""The one forward pass, and the gradient of a dataset's mean loss, for all callers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch, Reduction, chunks, collate, token_weights
from geomix.data.example import TokenisedExample
from geomix.models.loss import weighted_loss

Weighed = tuple[TokenisedExample, float]
"""An example, with the weight of each of its target tokens in the loss."""

Forward = Callable[[Batch], Tensor]
"""Function from a batch to the logits of its target tokens, `(P, V)`; see `Batch` for the order."""


def plain_forward(model: nn.Module, through: nn.Module | None = None, cache: Any = None) -> Forward:
    """Return the model's own forward pass, as every caller runs it.

    No attention mask is given: padding is on the right, where a causal model does not attend, and
    transformers separates the examples of a packed row by their positions. The output head runs
    only where a target token is predicted.

    Args:
        model: a causal LM of transformers.
        through: called in its place, such as the same model in `DistributedDataParallel`.
        cache: of transformers, empty: receives the keys and values of a batch that is not packed;
            it cannot separate the examples of a packed row.
    """
    call = model if through is None else through
    placed = takes_positions(model)
    kept = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}

    def forward(batch: Batch) -> Tensor:
        def choose(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0][batch.rows, batch.columns], *args[1:])

        where = {"position_ids": batch.positions} if placed else {}
        head = model.get_output_embeddings()  # type: ignore[operator]
        handle = head.register_forward_pre_hook(choose)
        try:
            logits: Tensor = call(input_ids=batch.ids, **kept, **where).logits
        finally:
            handle.remove()
        return logits

    return forward


def takes_positions(model: nn.Module) -> bool:
    """Return whether the model takes token positions; without them, no row can be packed."""
    return "position_ids" in inspect.signature(type(model).forward).parameters


def batches_of(
    examples: Sequence[TokenisedExample],
    reduction: Reduction,
    batch_size: int,
    pad_id: int,
    device: torch.device,
    width: int | None = None,
    share: Callable[[list[Weighed]], list[Weighed]] = list,
) -> Iterator[Batch]:
    """Yield the set in batches whose weights are those of the whole set's mean loss.

    Args:
        examples: the set.
        reduction: of the mean.
        batch_size: examples in a batch.
        pad_id: pads the rows.
        device: of the batches.
        width: of packed rows, see `collate`.
        share: selects this process's part of the examples, each with its weight.
    """
    weights = token_weights(examples, reduction)
    pairs = list(zip(examples, weights, strict=True))
    for part in chunks(share(pairs), batch_size):
        yield collate([e for e, _ in part], [w for _, w in part], pad_id, width).to(device)


def backward_over(forward: Forward, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """Add the gradient of the batches' summed loss to every parameter's `.grad`.

    Yields, after each backward pass, the batch and its detached logits `(P, V)`, so that a caller
    can read example scores or captured activations without a second pass.
    """
    for batch in batches:
        logits, _ = backward(forward, batch)
        yield batch, logits


def backward(
    forward: Forward,
    batch: Batch,
    extra: Callable[[Batch, Tensor], Tensor | None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of a batch's loss to every parameter's `.grad`.

    Args:
        forward: returns the logits.
        batch: with the weight of every target token.
        extra: an additional loss, whose gradient is added too; None for none.

    Returns:
        Its logits `(P, V)` and its loss without the additional one, a scalar, both detached.
    """
    logits = forward(batch)
    loss = weighted_loss(logits, batch)
    more = extra(batch, logits) if extra is not None else None
    # not Tensor.backward(): nnsight replaces that everywhere
    torch.autograd.backward(loss if more is None else loss + more)
    return logits.detach(), loss.detach()
