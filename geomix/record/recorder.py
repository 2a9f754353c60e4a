"""The observer of training that takes snapshots.

Shapes: N examples, P positions that predict a target token, L layers + 1, D features, M parameter
tensors, S probe sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from torch import Tensor

from geomix.data.batch import Batch, Reduction
from geomix.data.example import TokenisedExample
from geomix.model.gradient import backward_over, batches_of
from geomix.model.layers import decoder_layers, place_of, tied_head
from geomix.record.capture import CAPTURES, Capture, CaptureName
from geomix.record.gradients import (
    inner_products,
    take_gradients,
    trainable_parameters,
    undisturbed,
)
from geomix.record.rows import Rows
from geomix.record.schedule import parse
from geomix.record.snapshot import ProbeRecord, Snapshot
from geomix.record.store import file_name, write_snapshot
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
        rows = Rows(self.activations)
        for batch, logits in backward_over(forward, batches):
            rows.add(batch, logits, capture)
        return rows.joined()
