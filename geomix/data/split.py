"""Disjoint splits of a generated set, without a list of used items."""

from __future__ import annotations

from hashlib import blake2s
from typing import Literal, get_args

Split = Literal["train", "id", "held-out"]
"""Names of the splits. `train` is trained on; `id` is unseen examples of the same distribution, the
paper's in-domain stage 2; `held-out` is never trained on and serves as the null of the geometry."""

SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(key: str) -> Split:
    """Return the split that `key` belongs to: by a hash, so no two splits can share a key."""
    return SPLITS[blake2s(key.encode(), digest_size=8).digest()[0] % len(SPLITS)]
