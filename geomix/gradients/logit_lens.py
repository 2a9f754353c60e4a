"""The logit lens: the model's prediction if it ended after a layer.

Source: nostalgebraist (2020), "interpreting GPT: the logit lens". Every residual stream takes the
model's own path from its last layer to the logits, so the last one's answer is the model's.

Shapes: Q positions, V the vocabulary, L layers + 1, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geomix.util.errors import UserError

ENTRIES = 1 << 24
"""Most logits held at a time (64 MiB in float32)."""

_CLOSE = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference between equal logits, relative to 1 + |log-probability|; in float32 1e-3."""


def ranked(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return rank and log-probability of each target token.

    Args:
        logits: `(Q, V)`.
        targets: `(Q,)` token ids.

    Returns:
        `(Q,)` int32, 0 for the argmax; tokens with equal logits are ordered by their ids, of which
        the argmax is the first, so that rank 0 and being the argmax are the same. And `(Q,)`
        float32 in nats.
    """
    logits = logits.float()
    own = logits.gather(1, targets[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return ahead.sum(1, dtype=torch.int32), (own[:, 0] - logits.logsumexp(1))


def through_lens(
    residuals: Sequence[Tensor], targets: Tensor, to_logits: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return rank and log-probability of the target tokens after every layer.

    Args:
        residuals: L tensors `(Q, D)`, from the forward pass.
        targets: `(Q,)` token ids.
        to_logits: from `(n, D)` to `(n, V)`, see `geomix.models.layers.after_layers`.

    Returns:
        `(Q, L)` int32 and `(Q, L)` float32, on the CPU; see `ranked`.
    """
    rows = torch.stack([hidden.to(residuals[-1].dtype) for hidden in residuals], dim=1)
    rows = rows.reshape(-1, rows.shape[-1])
    wanted = targets.repeat_interleave(len(residuals))
    ranks, logprobs = [], []
    done, size = 0, 1  # only the first row shows how large the vocabulary is
    while done < len(rows):
        logits = to_logits(rows[done : done + size])
        rank, logprob = ranked(logits, wanted[done : done + size].to(logits.device))
        ranks.append(rank.cpu())
        logprobs.append(logprob.cpu())
        done, size = done + size, max(1, ENTRIES // logits.shape[1])
    shape = (len(targets), len(residuals))
    return torch.cat(ranks).reshape(shape), torch.cat(logprobs).reshape(shape)


def check_last(logprob: Tensor, nll: Tensor, dtype: torch.dtype) -> None:
    """Reject a lens whose last layer disagrees with the model.

    Args:
        logprob: `(Q, L)` of the lens.
        nll: `(Q,)` of the model itself, in nats.
        dtype: of the model's logits.

    Raises:
        UserError: they differ, so this model has another path from its layers to its logits.
    """
    own = -nll.detach().float().cpu()
    apart = ((logprob[:, -1] - own).abs() / (1 + own.abs())).max()
    if not apart <= _CLOSE.get(dtype, 1e-3):
        raise UserError(
            "record.lens: the last layer's log-probabilities are not the model's own (they differ "
            f"by {float(apart):.2g}): this architecture has another way to its logits; set "
            "record.lens: false"
        )
