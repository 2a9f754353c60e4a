"""AdamW and its learning rate, as a stage configures them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geomix.config.training import TrainConfig
from geomix.models.distributed import gathered, like

EPS = 1e-8
"""Number that Adam adds to the root of its second moment."""


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Create a new AdamW over the parameters that require a gradient."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=config.lr,
        betas=config.betas,
        eps=EPS,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(step: int, steps: int, config: TrainConfig, *, from_zero: bool = False) -> float:
    """Return the learning rate of a step.

    The warm-up's first step already moves (1/n of the peak, not 0), so that a snapshot after one
    step differs from the previous one.

    Args:
        step: 0 for the first step of the schedule.
        steps: number of steps of the schedule.
        config: peak, warm-up, shape and decay.
        from_zero: whether the warm-up's first step has rate 0 instead, and step i of n has i/n of
            the peak, as in transformers' schedules.
    """
    warmup = math.ceil(config.warmup * steps)
    if step < warmup and from_zero:
        return config.lr * step / warmup
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return config.lr * (1.0 - progress)
    if config.schedule == "wsd":
        decay = max(1, min(math.ceil(config.decay * steps), steps - warmup))
        return config.lr * min(1.0, (steps - step) / decay)
    return config.lr


def second_moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return Adam's v̂ by parameter name, each with the parameter's shape, type and sharding.

    The running mean of squared gradients, corrected for its start at zero: Kingma and Ba (2015),
    algorithm 1.
    """
    decay = optimiser.param_groups[0]["betas"][1]
    found = {}
    for name, parameter in model.named_parameters():
        if parameter in optimiser.state:
            state = optimiser.state[parameter]
            found[name] = state["exp_avg_sq"] / (1 - decay ** float(state["step"]))
    return found


def optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the complete optimiser state as tensors, by `key:parameter`; none before step 1."""
    return {
        f"{key}:{name}": gathered(value)
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser(
    model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Load the state that `optimiser_state` returned into a new optimiser.

    Raises:
        KeyError: the state names a parameter that the model lacks.
    """
    parameters = dict(model.named_parameters())
    for entry, value in state.items():
        key, name = entry.split(":", maxsplit=1)
        parameter = parameters[name]
        scalar = value.dim() == 0 or value.shape != parameter.shape
        held = value.to(parameter.device) if scalar else like(value, parameter)
        optimiser.state[parameter][key] = held
