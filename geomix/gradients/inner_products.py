"""Parameter gradients of several datasets and their exact inner products.

Shapes: M parameter tensors, S datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_CACHED, _LAUNCHED = 1 << 16, 1 << 20
"""Elements of a gradient converted to float64 at a time: on a CPU as many as stay in its cache (512
KiB a dataset), elsewhere more, as each time is a launch."""


def _chunk(device: torch.device) -> int:
    return _CACHED if device.type == "cpu" else _LAUNCHED


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters with `requires_grad`, by name; tied ones once, under the first name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Enter evaluation mode with gradients enabled; afterwards restore the model exactly.

    Evaluation mode applies to every module, as dropout would both blur the gradients and consume
    random numbers; modes, random state and absence of gradients are restored however the block
    ends.

    Raises:
        RuntimeError: a parameter already holds a gradient, which would be accumulated into.
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
    """Move the gradients out of the parameters, M tensors; None where the loss does not reach."""
    gradients = [parameter.grad for parameter in parameters.values()]
    for parameter in parameters.values():
        parameter.grad = None
    return gradients


def inner_products(
    gradients: Sequence[Sequence[Tensor | None]],
    metric: Sequence[Callable[[int, int], Tensor] | None] | None = None,
) -> NDArray[np.float64]:
    """Return inner products between datasets' gradients, one parameter tensor at a time.

    Args:
        gradients: S times M tensors; tensor m has the same shape for every dataset, on any device.
            None is zero.
        metric: for each of the M tensors, a function that returns the weights of its elements from
            one index to another, `(n,)` float64 (`adam_metric`), or None if it has none; without a
            metric every weight is 1.

    Returns:
        `(M, S, S)` float64, symmetric; accumulated in float64 whatever the gradients' dtype; NaN
        where the metric is None. The sum over M is the inner product of the whole gradients.
    """
    weights = [_ones] * len(gradients[0]) if metric is None else metric
    per_parameter = zip(zip(*gradients, strict=True), weights, strict=True)
    return np.stack([_gram(tensors, weight) for tensors, weight in per_parameter])


def adam_metric(second_moment: Tensor, eps: float) -> Callable[[int, int], Tensor]:
    """Return the weights 1 / (√v̂ + ε) of a parameter's elements, in float64, in slices.

    Args:
        second_moment: Adam's v̂, bias-corrected, of the parameter's shape.
        eps: ε.
    """
    flat = second_moment.detach().reshape(-1)

    def weights(start: int, end: int) -> Tensor:
        return 1 / (flat[start:end].to(torch.float64).sqrt() + eps)

    return weights


def _ones(_: int, __: int) -> Tensor:
    return torch.ones(1, dtype=torch.float64)


def _gram(
    tensors: Sequence[Tensor | None], weights: Callable[[int, int], Tensor] | None
) -> NDArray[np.float64]:
    if weights is None:
        return np.full((len(tensors), len(tensors)), np.nan)
    gram = np.zeros((len(tensors), len(tensors)))
    present = [i for i, tensor in enumerate(tensors) if tensor is not None]
    flat = [tensor.detach().reshape(-1) for tensor in tensors if tensor is not None]
    if not flat:
        return gram
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    some = _chunk(total.device)
    for start in range(0, flat[0].numel(), some):
        rows = torch.stack([g[start : start + some].to(total.device, torch.float64) for g in flat])
        weight = weights(start, start + rows.shape[1]).to(rows.device)
        total += (rows * weight) @ rows.T
    upper = torch.triu(total)  # BLAS does not promise a symmetric product
    gram[np.ix_(present, present)] = (upper + torch.triu(total, 1).T).cpu().numpy()
    return gram


def products_with(
    gradients: Sequence[Tensor | None], updates: Callable[[int, int], Tensor], size: int
) -> NDArray[np.float64]:
    """Return the products of one parameter's gradients with its updates.

    Args:
        gradients: S tensors of the parameter's shape; None is zero.
        updates: returns J updates of the elements from one index to another, `(J, n)` float64.
        size: elements of the parameter.

    Returns:
        `(S, J)` float64.
    """
    none = updates(0, 0)
    found, some = np.zeros((len(gradients), len(none))), _chunk(none.device)
    for start in range(0, size, some):
        update = updates(start, min(size, start + some))
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                row = gradient.detach().reshape(-1)[start : start + some]
                found[index] += (update @ row.to(update)).cpu().numpy()
    return found
