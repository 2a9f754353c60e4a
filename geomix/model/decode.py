"""Greedy decoding of many prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import torch

from geomix.data.batch import chunks
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
        budgets: at most how many tokens each continuation needs. One may be longer, as the largest
            budget of its batch is what a batch has; and shorter where the model has no positions.
        ends: token ids that end a continuation.
        batch_size: prompts decoded together.
    """
    # Similar budgets together: the largest of a batch sets its number of steps.
    order = sorted(range(len(prompts)), key=lambda i: (budgets[i], i))
    most = getattr(loaded.model.config, "max_position_embeddings", None)
    texts = [""] * len(prompts)
    for part in chunks(order, batch_size):
        width = max(len(prompts[i]) for i in part)
        # Padded on the left, so that every prompt ends where generation begins.
        spare = [width - len(prompts[i]) for i in part]
        ids = [[loaded.pad_id] * s + list(prompts[i]) for i, s in zip(part, spare, strict=True)]
        mask = [[0] * s + [1] * (width - s) for s in spare]
        steps = max(budgets[i] for i in part)
        with torch.no_grad():
            generated = loaded.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(ids, device=loaded.device),
                attention_mask=torch.tensor(mask, device=loaded.device),
                max_new_tokens=steps if most is None else max(1, min(steps, most - width)),
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=loaded.pad_id,
            )
        for i, row in zip(part, generated[:, width:].tolist(), strict=True):
            # An end token need not be marked special, nor what fills the batch after it.
            said = list(takewhile(lambda token: token not in ends, row))
            texts[i] = loaded.tokenizer.decode(said, skip_special_tokens=True)
    return texts
