"""The layout's version, and what older versions of it meant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "geomix snapshot"

SCHEMA = 4
"""Version, raised when a reader of the older one would misread the file.

Layers count from the embedding since 4, as hidden states do: 0 is what comes before the first
block, l is block l. In 3 the first block was 0, and what came before it −1.
"""

OLDEST = 3
"""The oldest version that is read."""

_LAYERS_FROM_BLOCK = 3

LAYER = "0 before the first block, l in block l, their number + 1 behind the last"
"""Description of `parameters/layer`, as `layer_numbers` reads it."""


def layer_numbers(dataset: Any, where: Any = ...) -> NDArray[np.int64]:
    """Read `parameters/layer` of a snapshot of any version, in today's numbers.

    Args:
        dataset: of the open file.
        where: index of what is read.

    Returns:
        int64; 0 before the first block, l in block l, `layers + 1` after the last.
    """
    earlier = int(dataset.file.attrs["schema"]) <= _LAYERS_FROM_BLOCK
    return np.asarray(dataset[where], dtype=np.int64) + earlier
