"""Length of the path that an arm's weights took through its kept checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from geomix.models.files import read_config, weight_files
from geomix.training.checkpoint import check
from geomix.util.errors import UserError
from geomix.util.progress import phase


def path_length(folders: Sequence[Path]) -> NDArray[np.float64]:
    """Return Σ‖θ_{k+1} − θ_k‖ up to each checkpoint, 0 for the first: `(n,)`.

    Chords: a lower bound of the length over all steps, closer the more checkpoints there are. One
    tensor of two checkpoints is in memory at a time.

    Args:
        folders: of the checkpoints, in temporal order.

    Raises:
        UserError: one is damaged, or they hold different tensors.
    """
    squares = np.zeros(max(0, len(folders) - 1))
    with ExitStack() as stack, phase("path through the weights", len(folders)) as advance:
        opened = []
        for folder in folders:
            opened.append(_opened(folder, stack))
            advance(1)
        for other, folder in zip(opened[1:], folders[1:], strict=True):
            if other.keys() != opened[0].keys():
                raise UserError(f"{folder}: holds other tensors than {folders[0]}; no path length")
        for name in opened[0]:
            before = opened[0][name].get_tensor(name).double()
            for k, tensors in enumerate(opened[1:]):
                now = tensors[name].get_tensor(name).double()
                squares[k] += float((now - before).square().sum())
                before = now
    return np.concatenate([[0.0], np.cumsum(np.sqrt(squares))])


def _opened(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Return the open file of each tensor of a checkpoint, by the tensor's name."""
    check(folder)
    found: dict[str, Any] = {}
    for file in weight_files(folder, read_config(folder)):
        try:
            tensors = stack.enter_context(safe_open(file, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: cannot be read ({error})") from None
        found |= dict.fromkeys(tensors.keys(), tensors)
    return found
