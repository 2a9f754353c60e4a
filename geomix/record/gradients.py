"""Parameter gradients of several datasets and their exact inner products.

Shapes: M parameter tensors, S datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CHUNK = 1 << 20
"""Elements of a gradient that are in float64 at a time (8 MiB a dataset)."""


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that has `requires_grad`, by name; tied ones once, under the first name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients, and then the model exactly as it was found.

    Evaluation mode for every module, as dropout would both blur the gradients and consume random
    numbers; modes, random state and absence of gradients are restored however the block ends.

    Raises:
        RuntimeError: a parameter holds a gradient at the start; it would be added to.
    """
    held = [name for name, p in model.named_parameters() if p.grad is not None]
    if held:
        raise RuntimeError(f"{held[0]} holds a gradient; record between zero_grad and backward")
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.enable_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in model.parameters():
            parameter.grad = None


def take_gradients(parameters: Mapping[str, nn.Parameter]) -> list[Tensor | None]:
    """Move the gradients out of the parameters, M tensors; None where no path leads to one."""
    gradients = [parameter.grad for parameter in parameters.values()]
    for parameter in parameters.values():
        parameter.grad = None
    return gradients


def inner_products(gradients: Sequence[Sequence[Tensor | None]]) -> NDArray[np.float64]:
    """Inner products between datasets' gradients, one parameter tensor at a time.

    Args:
        gradients: S times M tensors; tensor m has the same shape for every dataset. None is zero.

    Returns:
        `(M, S, S)` float64, symmetric; accumulated in float64 whatever the gradients' dtype. The
        sum over M is the inner product of the whole gradients.
    """
    per_parameter = zip(*gradients, strict=True)
    return np.stack([_gram(tensors) for tensors in per_parameter])


def _gram(tensors: Sequence[Tensor | None]) -> NDArray[np.float64]:
    gram = np.zeros((len(tensors), len(tensors)))
    present = [i for i, tensor in enumerate(tensors) if tensor is not None]
    flat = [tensor.detach().reshape(-1) for tensor in tensors if tensor is not None]
    if not flat:
        return gram
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    for start in range(0, flat[0].numel(), CHUNK):
        rows = torch.stack([g[start : start + CHUNK].to(torch.float64) for g in flat])
        total += rows @ rows.T
    upper = torch.triu(total)  # BLAS does not promise a symmetric product
    gram[np.ix_(present, present)] = (upper + torch.triu(total, 1).T).cpu().numpy()
    return gram
