"""Keys and values that one forward pass stores for the next: no prompt is read twice.

Shapes: R rows of T tokens, H key-value heads of D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class Past:
    """Keys and values of R rows.

    Attributes:
        layers: keys and values of each layer, `(R, H, T, D)`, every token's at its index.
    """

    layers: list[tuple[Tensor, Tensor]]

    @staticmethod
    def of(cache: DynamicCache) -> Past:
        """Return the keys and values that a forward pass stored."""
        kept: list[Any] = cache.layers
        return Past([(layer.keys, layer.values) for layer in kept])

    def up_to(self, rows: Sequence[int], counts: Sequence[int]) -> DynamicCache:
        """Return the first tokens of some rows as a cache, padded on the left.

        Args:
            rows: the rows, in the cache's order.
            counts: number of tokens of each, at least one; the cache is as wide as the largest.
        """
        device = self.layers[0][0].device
        row = torch.tensor(rows, device=device)
        count = torch.tensor(counts, device=device)
        place = torch.arange(max(counts), device=device) + (count - max(counts))[:, None]
        place = place.clamp(min=0)  # padding is never attended to

        def chosen(kept: Tensor) -> Tensor:
            return kept.transpose(1, 2)[row[:, None], place].transpose(1, 2)

        return DynamicCache([(chosen(keys), chosen(values)) for keys, values in self.layers])


@torch.no_grad()
def can_cache(model: nn.Module, first: int, last: int) -> bool:
    """Return whether a model's output from stored keys and values equals that from the text.

    This is tested by running the model. Models that store something else (recurrent ones), or share
    it between layers, fail.

    Args:
        model: a causal LM in evaluation mode.
        first: an ordinary token id.
        last: another one.
    """
    call: Any = model
    text = torch.tensor([[first, last, last, first, first]], device=next(model.parameters()).device)
    long, short = (call(input_ids=text[:, :n], use_cache=False).logits[0, -1] for n in (4, 3))
    cache = DynamicCache()
    try:
        call(input_ids=torch.cat([text, text]), past_key_values=cache, use_cache=True)
        if len(cache.layers) != model.config.num_hidden_layers:  # type: ignore[union-attr]
            return False
        found = call.generate(
            input_ids=torch.stack([text[0, :4], text[0, [0, 0, 1, 2]]]),
            attention_mask=text.new_tensor([[1, 1, 1, 1], [0, 1, 1, 1]]),
            past_key_values=Past.of(cache).up_to([1, 0], [3, 2]),
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        ).logits[0]
    except Exception:  # a model of another kind may raise anything
        return False
    expected = torch.stack([long, short])
    most = expected.abs().max() * _SAME.get(expected.dtype, _SAME_HALF)
    return bool((found.float() - expected.float()).abs().max() <= most)


_SAME = {torch.float32: 1e-4, torch.float64: 1e-4}
_SAME_HALF = 3e-2
"""Largest difference of the two outputs, as a share of the largest logit: some units of
rounding."""
