"""Divergence of a model's next-token distributions from stored ones.

Shapes: P answer positions, V the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log-probabilities `(P, V)` float32, in nats, from logits of any precision."""
    return logits.float().log_softmax(dim=-1)


def kl_divergence(start: Tensor, now: Tensor) -> Tensor:
    """Return KL(p_start ‖ p_now) = Σ_v p_start(v) · (ln p_start(v) − ln p_now(v)) per position.

    Non-negative up to rounding, 0 where the two are equal, and not symmetric. A token with
    probability 0 at the start contributes nothing.

    Args:
        start: log-probabilities `(P, V)`, in nats.
        now: the same of the other model.

    Returns:
        `(P,)` float64, in nats.
    """
    terms = start.exp() * (start - now)
    return terms.masked_fill(start == -torch.inf, 0.0).sum(dim=-1, dtype=torch.float64)
