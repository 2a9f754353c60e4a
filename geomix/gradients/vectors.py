"""Vectors of a model's parameter space: a tensor for each parameter, by its name.

Inner products are summed in float64, whatever the dtype of the tensors; sums keep the dtype. A
parameter that a vector does not name is 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = Mapping[str, Tensor]
"""Tensors by the parameter's name, on one device; float32, or float64 in tests."""


def dots(u: Vector, v: Vector) -> dict[str, float]:
    """Return the inner product of each tensor that both have, by its name; their sum is `dot`."""
    return {
        name: float(torch.dot(tensor.reshape(-1).double(), v[name].reshape(-1).double()))
        for name, tensor in u.items()
        if name in v
    }


def dot(u: Vector, v: Vector) -> float:
    """Return the inner product."""
    return math.fsum(dots(u, v).values())


def norm(v: Vector) -> float:
    """Return the Euclidean norm."""
    return math.sqrt(dot(v, v))


def cosine(u: Vector, v: Vector) -> float:
    """Return the cosine of the angle; nan if either vector is 0."""
    lengths = norm(u) * norm(v)
    return dot(u, v) / lengths if lengths else math.nan


def combine(terms: Iterable[tuple[float, Vector]]) -> dict[str, Tensor]:
    """Return the sum of coefficients times vectors; a tensor missing in some is 0 there."""
    total: dict[str, Tensor] = {}
    for factor, vector in terms:
        for name, tensor in vector.items():
            if name in total:
                total[name].add_(tensor, alpha=factor)
            else:
                total[name] = tensor * factor
    return total


def minus(u: Vector, v: Vector) -> dict[str, Tensor]:
    """Return the difference u − v of two vectors of the same tensors."""
    return {name: tensor - v[name] for name, tensor in u.items()}


def scaled(v: Vector, factor: float) -> dict[str, Tensor]:
    """Return a multiple of a vector."""
    return {name: tensor * factor for name, tensor in v.items()}


def unit(v: Vector) -> dict[str, Tensor]:
    """Return the vector divided by its norm.

    Raises:
        ValueError: it is 0.
    """
    length = norm(v)
    if not length:
        raise ValueError("a vector of 0 has no direction")
    return scaled(v, 1 / length)


def restricted(v: Vector, names: Iterable[str]) -> dict[str, Tensor]:
    """Return only the named tensors: the part of a vector in a block of parameters."""
    return {name: v[name] for name in names}


def by_group(values: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, float]:
    """Sum over groups of parameters, in the order in which the groups first occur.

    Args:
        values: a number for each tensor, as from `dots`.
        groups: the group of each tensor.
    """
    found: dict[str, list[float]] = {}
    for name, value in values.items():
        found.setdefault(groups[name], []).append(value)
    return {group: math.fsum(some) for group, some in found.items()}


def to_array(v: Vector, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Return the vector as `(P,)` float64, tensor after tensor.

    Args:
        v: the vector.
        names: order of the tensors; its own by default.
    """
    tensors = v.values() if names is None else (v[name] for name in names)
    return np.concatenate([t.detach().reshape(-1).double().cpu().numpy() for t in tensors])


def from_array(array: NDArray[np.float64], like: Vector) -> dict[str, Tensor]:
    """Return the vector that `to_array` laid out, with the shapes, dtypes and device of `like`."""
    found, start = {}, 0
    for name, tensor in like.items():
        part = torch.from_numpy(array[start : start + tensor.numel()].copy())
        found[name] = part.to(tensor).reshape(tensor.shape)
        start += tensor.numel()
    return found
