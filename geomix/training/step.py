"""One training step: the gradient of a batch's mean loss, source by source, and the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from geomix.config.training import TrainConfig
from geomix.data.batch import Batch, chunks, collate, token_weights
from geomix.data.example import TokenisedExample
from geomix.models.distributed import ALONE, Workers, whole
from geomix.models.forward import Forward, backward, plain_forward
from geomix.models.load import LoadedModel
from geomix.training.methods.applied import Applied
from geomix.training.methods.base import StepContext
from geomix.training.update_shares import Shares

Weighted = Mapping[str, Sequence[tuple[TokenisedExample, float]]]
"""A batch by source: each example with the weight of every one of its target tokens in the loss."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step.

    Attributes:
        loss: the batch's mean loss before the update, in nats; 0 for an empty batch.
        weights: share of each source in that mean; they sum to one.
        gradient_norm: euclidean norm of the gradient before clipping.
        update_shares: share of each source in the update, see `geomix.training.update_shares`; None
            unless requested.
        examples: number of examples in the batch.
        tokens: number of their tokens, prompts and targets, without padding.
        methods: numbers logged by the stage's methods, by `method.key`; None without any.
    """

    loss: float
    weights: dict[str, float]
    gradient_norm: float
    update_shares: dict[str, float] | None
    examples: int
    tokens: int
    methods: dict[str, float] | None = None


_ACCELERATED = torch.accelerator.is_available()
"""True if there are generators besides the CPU's; the CPU's alone is seeded 100 times faster."""


def seed_dropout(seed: int, stage: int, step: int, rank: int = 0) -> None:
    """Derive a step's dropout from the run's seed and position, so that resuming needs no state."""
    position = [seed, stage, step, 0x44524F50, *([rank] if rank else [])]
    drawn = np.random.SeedSequence(position).generate_state(1, np.uint64)[0]
    seed_all = torch.manual_seed if _ACCELERATED else torch.default_generator.manual_seed
    seed_all(int(drawn) >> 1)  # 63 bits: what every generator takes


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bfloat16 arithmetic on float32 weights, or none."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def row_width(config: TrainConfig, loaded: LoadedModel) -> int | None:
    """Return the configured width of packed rows in tokens; None if the model cannot pack."""
    if config.pack is None or not loaded.packs:
        return None
    return loaded.positions.up_to(config.pack)


def training_forward(
    model: nn.Module, precision: str, device: torch.device, through: nn.Module | None = None
) -> Forward:
    """Return the model's forward pass in the run's precision; `through` as in `plain_forward`."""
    plain = plain_forward(model, through)

    def forward(batch: Batch) -> Tensor:
        with autocast(precision, device):
            return plain(batch)

    return forward


@dataclass(frozen=True, slots=True)
class Stepper:
    """Optimiser steps of one stage.

    Attributes:
        model: in training mode.
        optimiser: over the parameters that train, learning rate already set.
        config: loss reduction, clip, precision and micro-batch size.
        pad_id: pads short rows.
        device: of the model.
        width: of packed rows, see `geomix.data.batch.collate`.
        workers: the processes that share the batch.
        through: module of the forward pass (`Workers.wrapped`); None is the model.
        shares: keeps the sources' first moments; None if their shares are not requested.
        methods: act on every step; None is plain training.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    config: TrainConfig
    pad_id: int
    device: torch.device
    width: int | None = None
    workers: Workers = ALONE
    through: nn.Module | None = None
    shares: Shares | None = None
    methods: Applied | None = None

    def step(
        self,
        sources: Mapping[str, Sequence[TokenisedExample]],
        position: tuple[int, int] = (0, 0),
        reseed: Callable[[], object] = bool,
    ) -> StepResult:
        """Take one optimiser step on a batch.

        Each forward pass holds examples of one source, whose weights are those of the whole batch's
        mean loss: the sum equals that of one pass, and gives the share of each source.

        Args:
            sources: the batch's examples by set name, the same in every process; all empty (the
                control, by chance) is a step on a gradient of zero.
            position: index of the stage and of the step, from 0.
            reseed: resets dropout to its state at the step's start.
        """
        everything = [example for examples in sources.values() for example in examples]
        weights = iter(token_weights(everything, self.config.loss) if everything else [])
        weighed = {
            name: [(example, next(weights)) for example in examples]
            for name, examples in sources.items()
        }
        if self.methods is not None:
            self.methods.begin_step(self._context(weighed, position, reseed))
            reseed()
        loss = self._backward(weighed)
        self._fill()
        if self.methods is not None:
            self.methods.transform(self._trained)
        norm, clipped = self._clip()
        self.optimiser.step()
        if self.methods is not None:
            self.methods.after_update(self._trained)
        shares = None
        if self.shares is not None:
            shares = self.shares.after(self.optimiser, list(sources), clipped)
        self.optimiser.zero_grad(set_to_none=True)
        return StepResult(
            loss=self.workers.total(loss.item()) / self.workers.world,
            weights={n: sum(e.target_tokens * w for e, w in p) for n, p in weighed.items()},
            gradient_norm=norm,
            update_shares=shares,
            examples=len(everything),
            tokens=sum(len(example.ids) for example in everything),
            methods=None if self.methods is None else self.methods.logged(),
        )

    @property
    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _context(
        self, weighed: Weighted, position: tuple[int, int], reseed: Callable[[], object]
    ) -> StepContext:
        """Return the context of the step for methods, with the passes that they may request."""
        plain, trained = replace(self, shares=None, methods=None), self._trained

        def take() -> dict[str, Tensor]:
            found = {name: p.grad for name, p in trained.items() if p.grad is not None}
            self.optimiser.zero_grad(set_to_none=True)
            return found

        def again(ended: Callable[[str], object] | None) -> dict[str, Tensor]:
            held = {name: p.grad for name, p in trained.items()}
            self.optimiser.zero_grad(set_to_none=True)
            with torch.enable_grad():
                reseed()
                plain._backward(weighed, ended)
            found = take()
            for name, parameter in trained.items():
                parameter.grad = held[name]
            return found

        def by_source() -> dict[str, dict[str, Tensor]]:
            sources: dict[str, dict[str, Tensor]] = {}
            again(lambda name: sources.update({name: take()}))
            return sources

        def recompute() -> dict[str, Tensor]:
            return again(None)

        rate = self.optimiser.param_groups[0]["lr"]
        return StepContext(*position, rate, self.optimiser, by_source, recompute)

    def _backward(self, weighed: Weighted, ended: Callable[[str], object] | None = None) -> Tensor:
        """Add the batch's gradient to the parameters; return this process's share of the loss.

        Args:
            weighed: the batch.
            ended: called with each source once its whole gradient has been added.
        """
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        forward = training_forward(self.model, self.config.precision, self.device, self.through)
        parts = [
            (name, part)
            for name, pairs in weighed.items()
            for part in chunks(self.workers.share(pairs), self.config.micro_batch_size)
        ]
        extra = None if self.methods is None else self.methods.extra
        if self.shares is not None:
            self.shares.begin()
            ended = self.shares.add
        for number, (name, part) in enumerate(parts, start=1):
            ends = number == len(parts) or parts[number][0] != name  # the source's last
            last = ends if ended is not None else number == len(parts)
            batch = collate([e for e, _ in part], [w for _, w in part], self.pad_id, self.width)
            with self.workers.alone(self.through, last=last):
                _, lost = backward(forward, batch.to(self.device), extra)
            loss += lost.double()
            if ended is not None and ends:
                ended(name)
        return loss

    def _fill(self) -> None:
        """Give every parameter a gradient, so that momentum acts in every step."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def _clip(self) -> tuple[float, float]:
        """Clip the gradient to the largest norm; return its norm before, and the factor."""
        parameters = self._parameters
        most = float("inf") if self.config.clip is None else self.config.clip
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, most)).item()
        return norm, min(1.0, most / (norm + 1e-6))  # as in torch
