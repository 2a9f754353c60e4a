"""Greedy decoding of many prompts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch

from geomix.data.foreign import where_of
from geomix.models.kv_cache import Past
from geomix.models.load import LoadedModel
from geomix.util.errors import one_line

Hopeless = Callable[[int, Sequence[int]], bool]
"""Function of a prompt's index and the tokens so far: whether decoding may stop."""


def greedy(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    ends: Collection[int],
    batch_size: int,
) -> list[str]:
    """Return greedy continuations as text, without special tokens; see `continuations`."""
    decoded = continuations(loaded, prompts, budgets, ends, batch_size)
    return [text_of(loaded, tokens) for tokens in decoded]


def text_of(loaded: LoadedModel, tokens: Sequence[int]) -> str:
    """Decode tokens to text, without special tokens."""
    with one_line(where_of(loaded.tokenizer)):
        return str(loaded.tokenizer.decode(tokens, skip_special_tokens=True))


def places_left(loaded: LoadedModel, length: int) -> int | None:
    """Return the number of positions left after `length`; None if unlimited."""
    most = loaded.positions.most
    return None if most is None else most - length


def continuations(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    ends: Collection[int],
    batch_size: int,
    hopeless: Hopeless | None = None,
    past: tuple[Past, Sequence[int]] | None = None,
) -> list[list[int]]:
    """Return greedy continuations up to their first end token.

    Args:
        loaded: the model, in evaluation mode.
        prompts: token ids; each at least one.
        budgets: most tokens of each continuation, at least 1. It has fewer if the model lacks the
            positions.
        ends: token ids that end a continuation.
        batch_size: most prompts decoded together; changes no continuation.
        hopeless: called after every token; a continuation for which it is true stops.
        past: keys and values of each prompt without its last token, and each prompt's row; None
            reads the prompts.
    """
    most = places_left(loaded, 0)
    lengths = [len(prompt) for prompt in prompts]
    steps = [
        budget if most is None else max(1, min(budget, most - length))
        for budget, length in zip(budgets, lengths, strict=True)
    ]
    found: list[list[int]] = [[]] * len(prompts)
    for part in _batches(lengths, steps, batch_size, most):
        width = max(lengths[i] for i in part)
        # Padded on the left, so that every prompt ends where generation begins.
        ids = [[loaded.pad_id] * (width - lengths[i]) + list(prompts[i]) for i in part]
        mask = [[0] * (width - lengths[i]) + [1] * lengths[i] for i in part]
        given_up = _GivenUp(part, width, hopeless) if hopeless else None
        kept = None
        if past is not None and width > 1:
            kept = past[0].up_to([past[1][i] for i in part], [lengths[i] - 1 for i in part])
        with torch.no_grad():
            generated = loaded.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(ids, device=loaded.device),
                attention_mask=torch.tensor(mask, device=loaded.device),
                past_key_values=kept,
                max_new_tokens=max(steps[i] for i in part),
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=loaded.pad_id,
                stopping_criteria=[given_up] if given_up else None,
                synced_gpus=False,  # each process has its own prompts, and the whole model here
            )
        for i, row in zip(part, generated[:, width:].tolist(), strict=True):
            most_kept = given_up.after.get(i, steps[i]) if given_up else steps[i]
            # An end token need not be marked special, nor the padding after it.
            found[i] = list(takewhile(lambda token: token not in ends, row[:most_kept]))
    return found


class _GivenUp:
    """Stopping criterion of `generate`: continuations that need not be completed."""

    def __init__(self, part: Sequence[int], width: int, hopeless: Hopeless) -> None:
        self.part = part
        self.width = width
        self.hopeless = hopeless
        self.after: dict[int, int] = {}
        """Number of tokens at which each continuation was given up."""

    def __call__(self, ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Return for each row whether it is given up: `(rows,)` bool."""
        for i, row in zip(self.part, ids[:, self.width :].tolist(), strict=True):
            if i not in self.after and self.hopeless(i, row):
                self.after[i] = len(row)
        return torch.tensor([i in self.after for i in self.part], device=ids.device)


def _batches(
    lengths: Sequence[int], steps: Sequence[int], size: int, most: int | None
) -> Iterator[list[int]]:
    """Yield indices of up to `size` prompts that fit the model's positions, including padding.

    Prompts with similar numbers of steps are grouped: the largest of a batch decides its time.
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
