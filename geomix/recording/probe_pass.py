"""Record of a probe set, built batch by batch.

Shapes: P positions that predict a target token, Q of them with activations, L layers + 1, D
features.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geomix.data.batch import Batch
from geomix.gradients.capture import Capture
from geomix.gradients.example_products import Sketcher
from geomix.gradients.logit_lens import check_last, through_lens
from geomix.models.loss import all_correct, token_nll
from geomix.snapshots.schema import ModuleRecord, ProbeRecord, SketchRecord
from geomix.util.errors import UserError


@dataclass
class Rows:
    """Record of a probe set, on the CPU.

    Attributes:
        activations_of: number of examples whose activations are stored, the first ones; None is
            all.
        to_logits: from a residual stream to logits, for the lens; None for none.
        sketcher: of single examples' gradients; None for none.
    """

    activations_of: int | None
    to_logits: Callable[[Tensor], Tensor] | None = None
    sketcher: Sketcher | None = None
    losses: list[Tensor] = field(default_factory=list)
    exact: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    activations: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)  # the model's loss there, for the lens
    dtypes: list[torch.dtype] = field(default_factory=list)  # of the residual stream, the logits
    modules: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    sketches: list[Tensor] = field(default_factory=list)

    def add(self, batch: Batch, logits: Tensor, capture: Capture) -> None:
        """Add a batch whose backward pass has run; `logits` are those of its target tokens.

        Raises:
            UserError: the lens or a module cannot be recorded for this model.
        """
        counts = torch.bincount(batch.owners.cpu(), minlength=batch.examples)
        nll = token_nll(logits, batch)
        self.exact.append(all_correct(logits, batch))
        self.counts.append(counts)
        self.positions.append(batch.positions[batch.rows, batch.columns].cpu())
        self.targets.append(batch.targets.cpu())
        kept = batch.owners < self._left()
        if kept.any():
            self._keep(batch, logits.dtype, nll, kept, capture)
        if self.sketcher is not None:
            self.sketches.append(self.sketcher.of(capture.calls, batch))
        self.losses.append(batch.per_example(nll) / counts)

    def _keep(
        self, batch: Batch, dtype: torch.dtype, nll: Tensor, kept: Tensor, capture: Capture
    ) -> None:
        """Store the activations and gradients at the positions of the first examples."""
        where = (batch.rows[kept], batch.columns[kept])
        self.activations.append(_gather(capture.activations, where))
        self.gradients.append(_gather(capture.gradients, where))
        self.own.append(nll[kept].detach().float().cpu())
        self.dtypes = [capture.activations[-1].dtype, dtype]
        for name in capture.modules:
            output, gradient = capture.module_outputs.get(name, (None, None))
            if output is None or output.shape[:2] != batch.ids.shape or output.dim() == 2:  # noqa: PLR2004
                raise UserError(
                    f"record.modules: {name} gives out no features at every token; leave it out"
                )
            if gradient is None:
                raise UserError(
                    f"record.modules: no gradient of the loss reaches {name}; leave it out"
                )
            found = tuple(t[where].flatten(1).to("cpu", torch.float32) for t in (output, gradient))
            self.modules.setdefault(name, []).append((found[0], found[1]))

    def _left(self) -> int:
        """Return how many of the next examples store their activations."""
        done = sum(len(losses) for losses in self.losses)
        return sys.maxsize if self.activations_of is None else self.activations_of - done

    def joined(self) -> ProbeRecord:
        """Return the record of all batches.

        Raises:
            UserError: the lens cannot be recorded for this model.
        """
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat(self.counts).cumsum(0)])
        kept = bool(self.activations)
        activations = torch.cat(self.activations) if kept else None
        targets = torch.cat(self.targets)
        rank, logprob = None, None
        if self.to_logits is not None and activations is not None:
            residuals = [hidden.to(self.dtypes[0]) for hidden in activations.unbind(1)]
            there = targets[: len(activations)]
            rank, logprob = through_lens(residuals, there, self.to_logits)
            check_last(logprob, torch.cat(self.own), self.dtypes[1])
        sketches = None
        if self.sketcher is not None:
            sketches = SketchRecord(torch.cat(self.sketches).numpy(), self.sketcher.seed)
        return ProbeRecord(
            loss=torch.cat(self.losses).numpy(),
            exact=torch.cat(self.exact).numpy(),
            offsets=offsets.numpy(),
            positions=torch.cat(self.positions).numpy(),
            targets=targets.numpy(),
            activations=None if activations is None else activations.numpy(),
            gradients=torch.cat(self.gradients).numpy() if kept else None,
            lens_rank=None if rank is None else rank.numpy(),
            lens_logprob=None if logprob is None else logprob.numpy(),
            modules={
                name: ModuleRecord(*(torch.cat(part).numpy() for part in zip(*found, strict=True)))
                for name, found in self.modules.items()
            },
            sketches=sketches,
        )


def _gather(layers: Sequence[Tensor], where: tuple[Tensor, Tensor]) -> Tensor:
    """Return the chosen positions of layers + 1 tensors `(R, T, D)`: `(Q, L, D)` float32, CPU."""
    return torch.stack([layer[where].to("cpu", torch.float32) for layer in layers], dim=1)
