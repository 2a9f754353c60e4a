"""Storage of the probe sets' gradients while a snapshot is computed: in memory, or on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Keep = Callable[[Sequence[Tensor | None]], list[Tensor | None]]
"""Function that takes a gradient's tensors and returns the same numbers, perhaps stored
elsewhere."""

_ALIGNED = 64


def in_memory(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Keep gradients where they are."""
    return list(gradients)


def on_disk(folder: Path) -> Keep:
    """Copy gradients to an unnamed file in the folder, which vanishes with its last tensor.

    So a killed process leaves nothing behind.

    Args:
        folder: on the target disk; it is created.
    """

    def keep(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        sizes = [0 if g is None else _aligned(g.numel() * g.element_size()) for g in gradients]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Space is reserved first: a disk that fills up while writing to a map ends the process.
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, sum(sizes)))
            except OSError as error:
                error.filename = str(folder)
                raise
            mapped = torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+"))
        kept: list[Tensor | None] = []
        start = 0
        for gradient, size in zip(gradients, sizes, strict=True):
            if gradient is None:
                kept.append(None)
                continue
            bytes_ = gradient.numel() * gradient.element_size()
            copy = mapped[start : start + bytes_].view(gradient.dtype).view(gradient.shape)
            kept.append(copy.copy_(gradient.detach()))
            start += size
        return kept

    return keep


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
