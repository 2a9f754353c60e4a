"""Hash of a probe set, and streaming of its whole gradient."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomix.data.example import TokenisedExample
from geomix.models.distributed import gathered, sharded_like
from geomix.recording.path_segments import Gradient


def content_hash_of(examples: Sequence[TokenisedExample]) -> str:
    """Return the SHA-256 of the token ids and labels, as JSON."""
    content = json.dumps([[example.ids, example.labels] for example in examples])
    return hashlib.sha256(content.encode()).hexdigest()


class Streamed:
    """Gradient as float32 arrays, created one by one, so that no second copy of it is held.

    If the parameters are sharded, all processes iterate over it together, and the first one gets
    the whole.
    """

    def __init__(self, parameters: Sequence[Tensor], gradient: Gradient) -> None:
        self._given = (parameters, gradient)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for parameter, gradient in zip(*self._given, strict=True):
            if gradient is None:
                yield np.zeros(parameter.shape, dtype=np.float32)
            else:
                whole = gathered(sharded_like(gradient.detach(), parameter))
                yield whole.to("cpu", torch.float32).numpy()
