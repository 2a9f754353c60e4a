"""The observer of training that takes snapshots.

Shapes: N examples, P positions that predict a target token, L layers + 1, D features, M parameter
tensors, S probe sets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomix.data.batch import Batch, Reduction
from geomix.data.example import TokenisedExample
from geomix.model.gradient import backward_over, batches_of
from geomix.model.layers import decoder_layers, place_of, tied_head
from geomix.model.loss import all_correct, token_nll
from geomix.record.capture import CAPTURES, Capture, CaptureName
from geomix.record.gradients import (
    inner_products,
    take_gradients,
    trainable_parameters,
    undisturbed,
)
from geomix.record.schedule import parse
from geomix.record.store import ProbeRecord, Snapshot, file_name, write_snapshot
from geomix.train.events import Moment


class Recorder:
    """Writes a snapshot at the scheduled steps; an `Observer` that leaves no trace on training.

    Needs memory for S + 1 gradients of the model beside the model itself.

    Args:
        folder: where the snapshot files go.
        probes: the probe sets by name, in the order of the record; none of them empty.
        at: which steps, see `geomix.record.schedule.parse`.
        reduction: the mean whose gradients are recorded.
        batch_size: examples in a pass; changes memory and speed, not the record.
        pad_id: token id of the padding.
        capture: `nnsight`, or `hooks` for plain torch hooks (the same numbers without the import).
        activations: of how many examples a set, the first ones, activations and their gradients
            are stored, nearly all of a file; None is all, 0 none.
        autocast: makes the context of each forward pass, to record mixed precision as trained.
        width: of packed rows, see `geomix.data.batch.collate`.

    Raises:
        ValueError: a probe set is empty or its name cannot be a group's, or `at` is malformed.
    """

    def __init__(
        self,
        folder: Path,
        probes: Mapping[str, Sequence[TokenisedExample]],
        at: Sequence[str | int],
        *,
        reduction: Reduction,
        batch_size: int,
        pad_id: int,
        capture: CaptureName = "nnsight",
        activations: int | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        width: int | None = None,
    ) -> None:
        for name, examples in probes.items():
            if not examples:
                raise ValueError(f"probe set {name!r} is empty")
            if not name or "/" in name or name == ".":
                raise ValueError(f"probe set {name!r}: not a name for a group of HDF5")
        self.folder = folder
        self.probes = dict(probes)
        self.schedule = parse(at)
        self.reduction: Reduction = reduction
        self.batch_size = batch_size
        self.pad_id = pad_id
        self.capture: CaptureName = capture
        self.activations = activations
        self.autocast = autocast
        self.width = width

    def observe(self, moment: Moment) -> None:
        """Write this moment's snapshot if it is scheduled."""
        scheduled = self.schedule.steps_of(moment.stage, moment.steps)
        if moment.step in scheduled or (moment.last and self.schedule.boundaries):
            path = self.folder / file_name(moment.stage, moment.step)
            write_snapshot(path, self.snapshot(moment))

    def snapshot(self, moment: Moment) -> Snapshot:
        """Run every probe set through the model as it is now.

        Raises:
            RuntimeError: the model holds gradients.
        """
        model = moment.model
        parameters = trainable_parameters(model)
        layers = len(decoder_layers(model))
        places = [place_of(name, layers) for name in parameters]
        probes: dict[str, ProbeRecord] = {}
        gradients: list[list[Tensor | None]] = []
        with undisturbed(model), CAPTURES[self.capture](model) as capture:
            for name, examples in self.probes.items():
                probes[name] = self._record(capture, examples)
                gradients.append(take_gradients(parameters))
        return Snapshot(
            stage=moment.stage,
            stage_name=moment.stage_name,
            step=moment.step,
            steps=moment.steps,
            reduction=self.reduction,
            sets=tuple(probes),
            probes=probes,
            parameters=tuple(parameters),
            sizes=np.array([p.numel() for p in parameters.values()], dtype=np.int64),
            parameter_layers=np.array([place.layer for place in places], dtype=np.int64),
            parameter_modules=tuple(place.module for place in places),
            inner_products=inner_products(gradients),
            layers=layers,
            tied_head=tied_head(model),
            trainable=sum(p.requires_grad for p in model.parameters()),
        )

    def _record(self, capture: Capture, examples: Sequence[TokenisedExample]) -> ProbeRecord:
        """One probe set; its gradient is left in the parameters."""

        def forward(batch: Batch) -> Tensor:
            with self.autocast():
                return capture(batch)

        device = next(capture.model.parameters()).device
        batches = batches_of(
            examples, self.reduction, self.batch_size, self.pad_id, device, self.width
        )
        rows = _Rows(self.activations)
        for batch, logits in backward_over(forward, batches):
            rows.add(batch, logits, capture)
        return rows.joined()


@dataclass
class _Rows:
    """The record of a probe set, batch by batch, on the CPU."""

    activations_of: int | None
    losses: list[Tensor] = field(default_factory=list)
    exact: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    activations: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def add(self, batch: Batch, logits: Tensor, capture: Capture) -> None:
        counts = torch.bincount(batch.owners.cpu(), minlength=batch.examples)
        self.exact.append(all_correct(logits, batch))
        self.counts.append(counts)
        self.positions.append(batch.positions[batch.rows, batch.columns].cpu())
        self.targets.append(batch.targets.cpu())
        kept = batch.owners < self._left()
        if kept.any():
            where = (batch.rows[kept], batch.columns[kept])
            self.activations.append(_gather(capture.activations, where))
            self.gradients.append(_gather(capture.gradients, where))
        self.losses.append(batch.per_example(token_nll(logits, batch)) / counts)

    def _left(self) -> int:
        """How many of the next examples keep their activations."""
        done = sum(len(losses) for losses in self.losses)
        return sys.maxsize if self.activations_of is None else self.activations_of - done

    def joined(self) -> ProbeRecord:
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat(self.counts).cumsum(0)])
        kept = bool(self.activations)
        return ProbeRecord(
            loss=torch.cat(self.losses).numpy(),
            exact=torch.cat(self.exact).numpy(),
            offsets=offsets.numpy(),
            positions=torch.cat(self.positions).numpy(),
            targets=torch.cat(self.targets).numpy(),
            activations=torch.cat(self.activations).numpy() if kept else None,
            gradients=torch.cat(self.gradients).numpy() if kept else None,
        )


def _gather(layers: Sequence[Tensor], where: tuple[Tensor, Tensor]) -> Tensor:
    """The chosen positions of layers + 1 tensors `(R, T, D)`: `(P, L, D)` float32 on the CPU."""
    return torch.stack([layer[where].to("cpu", torch.float32) for layer in layers], dim=1)
