"""Contribution of each source to the updates: a first moment of Adam for each source.

Adam's first moment is linear in the gradient, and a batch's gradient is the sum of its sources'.
With m_s the decayed mean of source s's clipped gradients and the common second moment v̂, the step
is u = Σ_s u_s with u_s = m̂_s / (√v̂ + ε); the share of s is ⟨u_s, u⟩ / ⟨u, u⟩. Shares sum to one;
one below zero pulls against the step. Source: Kingma and Ba (2015), algorithm 1; decoupled weight
decay is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from geomix.models.distributed import whole


@dataclass
class Shares:
    """First moments of the sources of one stage.

    Attributes:
        parameters: those that train, by name.
        beta: Adam's decay rate of the first moment.
        moments: by `source:parameter`, each with the parameter's shape.
    """

    parameters: Mapping[str, nn.Parameter]
    beta: float
    moments: dict[str, Tensor] = field(default_factory=dict)
    _before: list[Tensor | None] = field(default_factory=list)
    _gradients: dict[str, list[Tensor | None]] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin a step, before any parameter holds a gradient."""
        self._before = [None] * len(self.parameters)
        self._gradients = {}

    def add(self, source: str) -> None:
        """Attribute the growth of the parameters' gradients since the last call to the source."""
        held = [p.grad for p in self.parameters.values()]
        self._gradients[source] = [
            None if new is None else new.clone() if old is None else new - old
            for new, old in zip(held, self._before, strict=True)
        ]
        self._before = [None if gradient is None else gradient.clone() for gradient in held]

    @torch.no_grad()
    def after(
        self, optimiser: torch.optim.Optimizer, sources: Sequence[str], clipped: float
    ) -> dict[str, float]:
        """Return the shares of the last step.

        Args:
            optimiser: Adam, after its step.
            sources: of the stage; one that the batch lacked only decays.
            clipped: the factor by which the whole gradient was clipped.
        """
        products = dict.fromkeys(sources, 0.0)
        total = 0.0
        for index, (name, parameter) in enumerate(self.parameters.items()):
            root = _root(optimiser, parameter)
            moves: dict[str, Tensor] = {}
            for source in sources:
                key = f"{source}:{name}"
                if key not in self.moments:
                    self.moments[key] = torch.zeros_like(parameter)
                gradient = self._gradients.get(source, [None] * len(self.parameters))[index]
                self.moments[key].mul_(self.beta)
                if gradient is not None:
                    self.moments[key].add_(gradient, alpha=(1 - self.beta) * clipped)
                moves[source] = whole(self.moments[key] / root).double()
            whole_move = torch.stack(list(moves.values())).sum(0)
            total += float(whole_move.square().sum())
            for source, move in moves.items():
                products[source] += float((move * whole_move).sum())
        self._gradients, self._before = {}, []
        return {source: value / total if total else 0.0 for source, value in products.items()}

    @torch.no_grad()
    def parts(self, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
        """Return the parts that sum to the last step.

        Args:
            optimiser: AdamW, after its step.

        Returns:
            By source the displacement of each parameter by its first moment, by the parameter's
            name; with weight decay also that, as `decay`. The sum is the step up to rounding.
        """
        group = optimiser.param_groups[0]
        found: dict[str, dict[str, Tensor]] = {}
        for key, moment in self.moments.items():
            source, name = key.split(":", maxsplit=1)
            parameter = self.parameters[name]
            begun = 1 - group["betas"][0] ** float(optimiser.state[parameter]["step"])
            move = moment / _root(optimiser, parameter) * (-group["lr"] / begun)
            found.setdefault(source, {})[name] = move
        rate = group["lr"] * group["weight_decay"]
        if rate:  # AdamW shrinks the weights first: θ' = (1 − rate) θ + moves
            found[DECAY] = {
                name: (parameter - sum(part[name] for part in found.values()))
                * (-rate / (1 - rate))
                for name, parameter in self.parameters.items()
            }
        return found


DECAY = "decay"
"""Name of weight decay among the parts of a step; no source has that name."""


def _root(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor:
    """Return √v̂ + ε, the divisor of Adam's first moment."""
    state, group = optimiser.state[parameter], optimiser.param_groups[0]
    second: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    root: Tensor = second.sqrt() + group["eps"]
    return root
