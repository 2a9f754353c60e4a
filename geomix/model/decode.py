"""Greedy decoding of many prompts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile

import torch

from geomix.model.load import LoadedModel


def greedy(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    ends: Collection[int],
    batch_size: int,
) -> list[str]:
    """Greedy continuations up to their first end token, special tokens left out.

    Args:
        loaded: the model, in evaluation mode.
        prompts: token ids; each at least one.
        budgets: at most how many tokens each continuation has; at least 1. It has fewer where the
            model has no positions for them.
        ends: token ids that end a continuation.
        batch_size: prompts decoded together at most; changes no continuation.
    """
    most = getattr(loaded.model.config, "max_position_embeddings", None)
    lengths = [len(prompt) for prompt in prompts]
    steps = [
        budget if most is None else max(1, min(budget, most - length))
        for budget, length in zip(budgets, lengths, strict=True)
    ]
    texts = [""] * len(prompts)
    for part in _batches(lengths, steps, batch_size, most):
        width = max(lengths[i] for i in part)
        # Padded on the left, so that every prompt ends where generation begins.
        ids = [[loaded.pad_id] * (width - lengths[i]) + list(prompts[i]) for i in part]
        mask = [[0] * (width - lengths[i]) + [1] * lengths[i] for i in part]
        with torch.no_grad():
            generated = loaded.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(ids, device=loaded.device),
                attention_mask=torch.tensor(mask, device=loaded.device),
                max_new_tokens=max(steps[i] for i in part),
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=loaded.pad_id,
            )
        for i, row in zip(part, generated[:, width:].tolist(), strict=True):
            # An end token need not be marked special, nor what fills the batch after it.
            said = list(takewhile(lambda token: token not in ends, row[: steps[i]]))
            texts[i] = loaded.tokenizer.decode(said, skip_special_tokens=True)
    return texts


def _batches(
    lengths: Sequence[int], steps: Sequence[int], size: int, most: int | None
) -> Iterator[list[int]]:
    """Indices of up to `size` prompts each that the model has positions for, padding included.

    Similar numbers of steps stand together: the largest of a batch is what it takes.
    """
    part: list[int] = []
    width = 0
    for i in sorted(range(len(lengths)), key=lambda i: (steps[i], i)):
        width = max(width, lengths[i])
        if len(part) == size or (part and most is not None and width + steps[i] > most):
            yield part
            part, width = [], lengths[i]
        part.append(i)
    if part:
        yield part
