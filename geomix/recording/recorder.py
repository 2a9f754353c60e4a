"""Observer of training that records snapshots.

Shapes: N examples, P positions that predict a target token, L layers + 1, D features, M parameter
tensors, S probe sets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from geomix.config.schedule import parse
from geomix.data.batch import Batch, Reduction
from geomix.data.example import TokenisedExample
from geomix.gradients.capture import CAPTURES, Capture, CaptureName, module_names
from geomix.gradients.example_products import Sketcher
from geomix.gradients.inner_products import (
    adam_metric,
    inner_products,
    take_gradients,
    trainable_parameters,
    undisturbed,
)
from geomix.gradients.per_example import PerExample
from geomix.gradients.spill import in_memory, on_disk
from geomix.models.distributed import ALONE, Workers, shard_of
from geomix.models.forward import Forward, backward_over, batches_of, plain_forward
from geomix.models.layers import after_layers, decoder_layers, location_of, tied_head
from geomix.recording.gather import gather_record
from geomix.recording.path_segments import Gradient, Segment
from geomix.recording.probe_pass import Rows
from geomix.recording.quantities.base import ProbeBatch, ProbeSet, Quantity
from geomix.recording.quantities.collected import Collected
from geomix.recording.streamed import Streamed, content_hash_of
from geomix.snapshots.file import file_name, write_snapshot
from geomix.snapshots.schema import (
    AdamProducts,
    PathRecord,
    ProbeRecord,
    QuantityRecord,
    Snapshot,
)
from geomix.training.observer import SecondMoments, TrainingEvent
from geomix.util.progress import during


class Recorder:
    """Writer of snapshots at the scheduled steps; an `Observer` without any effect on training.

    Needs memory for at most S + 1 gradients of the model beside the model itself; with `scratch`
    for one, and S copies on the disk. With `midpoints`, see also `geomix.recording.path_segments`.

    Args:
        folder: of the snapshot files.
        probes: the probe sets by name, in the order of the record; none of them empty.
        at: the steps, see `geomix.config.schedule.parse`.
        reduction: the mean whose gradients are recorded.
        batch_size: examples in a pass; affects memory and speed, not the record.
        pad_id: token id of the padding.
        capture: `nnsight`, or `hooks` for plain torch hooks (the same numbers without the import).
        activations: number of examples per set, the first ones, whose activations and their
            gradients are stored, nearly all of a file; None is all, 0 none.
        lens: whether the logit lens is applied there (`geomix.gradients.logit_lens`).
        modules: patterns of the names of modules whose outputs are also stored there.
        quantities: further quantities by name (`geomix.recording.quantities`).
        adam: whether the inner products in Adam's metric are stored once there is one.
        sketches: entries and seed of the sketches of single examples' gradients; None for none.
        gradients: whether whole gradients are stored.
        midpoints: whether the path between snapshots is stored (`geomix.recording.path_segments`).
        pairs: whether also that of every other snapshot.
        scratch: whether a snapshot's gradients are held in a file of the folder, not in memory.
        autocast: creates the context of each forward pass, to record mixed precision as trained.
        width: of packed rows, see `geomix.data.batch.collate`.
        origin: of the model, see `geomix.snapshots.schema.ORIGIN`.
        workers: the processes that compute a snapshot together, each a share of every probe set;
            the first one writes it.

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
        lens: bool = False,
        modules: Sequence[str] = (),
        quantities: Mapping[str, Quantity] | None = None,
        adam: bool = True,
        sketches: tuple[int, int] | None = None,
        gradients: bool = False,
        midpoints: bool = False,
        pairs: bool = False,
        scratch: bool = False,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        width: int | None = None,
        origin: Mapping[str, str | int] | None = None,
        workers: Workers = ALONE,
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
        self.lens = lens
        self.modules = modules
        self.quantities = dict(quantities or {})
        self.adam = adam
        self.sketches = sketches
        self.gradients = gradients
        self.midpoints = midpoints
        self.pairs = pairs
        self.keep = on_disk(folder) if scratch else in_memory
        self.autocast = autocast
        self.width = width
        self.origin = dict(origin or {})
        self.hashes = {name: content_hash_of(examples) for name, examples in probes.items()}
        self.workers = workers
        self._segment: Segment | None = None
        self._known: Sketcher | None = None

    def observe(self, event: TrainingEvent) -> None:
        """Write a snapshot of this event if it is scheduled."""
        if self._segment is not None and event.update is not None:
            self._segment.add(event.update())
        scheduled = event.step in self.schedule.steps_of(event.stage, event.steps)
        begins = event.step == 0 and not scheduled  # as between two stages
        if event.resumed or begins:
            self._segment = None
            if self.midpoints and (begins or scheduled):
                self._begin(event)
        elif scheduled or (event.last and self.schedule.boundaries):
            snapshot = self.snapshot(event)
            file = self.folder / file_name(event.stage, event.step)
            # A snapshot from before the resume knows the path that leads to it: that one stays.
            better = self._is_whole(snapshot) or not file.exists()
            if self.workers.main and better:
                write_snapshot(file, snapshot)
            else:
                for gradient in (snapshot.gradients or {}).values():
                    deque(gradient, maxlen=0)  # all processes gather it from their shards

    @during(lambda _, event: f"recording stage {event.stage + 1}, step {event.step}")
    def snapshot(self, event: TrainingEvent) -> Snapshot:
        """Run every probe set through the present model.

        Raises:
            RuntimeError: the model holds gradients.
            UserError: a requested quantity cannot be recorded for this model.
        """
        model = event.model
        parameters = trainable_parameters(model)
        layers = len(decoder_layers(model))
        locations = [location_of(name, layers) for name in parameters]
        chosen = module_names(model, self.modules)
        sketcher = self._sketcher(model)
        probes: dict[str, ProbeRecord] = {}
        gradients: list[Gradient] = []
        with undisturbed(model):
            to_logits = after_layers(model) if self.lens else None
            ended = self._end(event, parameters)
            watched = sketcher.examples.watched if sketcher else ()
            with CAPTURES[self.capture](model, chosen, watched) as capture:
                for name, examples in self.probes.items():
                    collected = Collected(self.quantities)
                    found = self._record(capture, examples, to_logits, sketcher, collected)
                    kept, extra = self._kept(parameters, model, examples, collected)
                    probes[name] = replace(found, quantities=extra)
                    gradients.append(kept)
        path = ended[1](gradients) if ended else None
        before = ended[0] if ended and self.pairs else None
        ended = None  # releases the weights of its start before those of the next are kept
        if self.midpoints and not event.last:
            self._segment = Segment.begin(event, parameters, [*gradients], self.workers, before)
        return Snapshot(
            stage=event.stage,
            stage_name=event.stage_name,
            step=event.step,
            steps=event.steps,
            reduction=self.reduction,
            sets=tuple(probes),
            probes=probes,
            parameters=tuple(parameters),
            sizes=np.array([p.numel() for p in parameters.values()], dtype=np.int64),
            parameter_layers=np.array([one.layer for one in locations], dtype=np.int64),
            parameter_modules=tuple(one.module for one in locations),
            inner_products=self.workers.summed(inner_products(gradients)),
            layers=layers,
            tied_head=tied_head(model),
            trainable=sum(p.requires_grad for p in model.parameters()),
            unreached=np.array([[g is None for g in one] for one in gradients]).T,
            adam=self._in_adams_metric(parameters, gradients, event.second_moments),
            path=path,
            no_path=self._no_path(event, path),
            origin=self.origin,
            hashes=self.hashes,
            gradients=self._whole(parameters, gradients) if self.gradients else None,
        )

    def _kept(
        self,
        parameters: Mapping[str, nn.Parameter],
        model: nn.Module,
        examples: Sequence[TokenisedExample],
        collected: Collected,
    ) -> tuple[Gradient, dict[str, QuantityRecord]]:
        """Take a set's gradient, finish its quantities and store it; nothing else holds it."""
        gradient = self._take(parameters)
        known = dict(zip(parameters, gradient, strict=True))
        extra = collected.joined(ProbeSet(examples, model, known), self.workers)
        return self.keep(gradient), extra

    def _end(
        self, event: TrainingEvent, parameters: Mapping[str, nn.Parameter]
    ) -> tuple[Segment, Callable[[Sequence[Gradient]], PathRecord]] | None:
        """Return the segment that ends here, and its record without the gradients at its end."""
        segment, self._segment = self._segment, None
        if segment is None or not segment.leads_to(event, parameters):
            return None
        middle = partial(self._gradients, event.model, parameters)
        keep = self.pairs and not event.last
        return segment, segment.end(event, parameters, middle, keep)

    def _is_whole(self, snapshot: Snapshot) -> bool:
        """Return whether a snapshot has everything requested of the path that leads to it."""
        if not self.midpoints:
            return True
        path = snapshot.path
        paired = path is not None and (path.pair is not None or path.from_step == 0)
        return paired if self.pairs else path is not None

    def _begin(self, event: TrainingEvent) -> None:
        """Start a segment of the path where no snapshot is recorded."""
        parameters = trainable_parameters(event.model)
        with undisturbed(event.model):
            found = list(map(self.keep, self._gradients(event.model, parameters)))
        self._segment = Segment.begin(event, parameters, [*found], self.workers)

    def _gradients(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter]
    ) -> Iterator[Gradient]:
        """Yield each set's gradient at the model's present weights."""
        forward = self._forward(plain_forward(model))
        for examples in self.probes.values():
            for _ in backward_over(forward, self._batches(model, examples)):
                pass
            yield self._take(parameters)

    def _take(self, parameters: Mapping[str, nn.Parameter]) -> Gradient:
        """Take a set's gradient from the parameters, averaged over the processes' shares."""
        return self.workers.averaged(take_gradients(parameters), list(parameters.values()))

    def _no_path(self, event: TrainingEvent, path: PathRecord | None) -> str:
        if not self.midpoints:
            return "not asked for"
        if path is not None:
            return ""
        if event.step == 0:
            return "the stage begins here"
        return "the weights of the snapshot before were not at hand"

    def _in_adams_metric(
        self,
        parameters: Mapping[str, nn.Parameter],
        gradients: Sequence[Gradient],
        second: SecondMoments | None,
    ) -> AdamProducts | None:
        """Return the products in Adam's metric; None before its first step, or if untrained."""
        if second is None or not self.adam:
            return None
        found = second.read()
        if not any(name in found for name in parameters):
            return None
        metric = [
            adam_metric(shard_of(found[name], parameter), second.eps) if name in found else None
            for name, parameter in parameters.items()
        ]
        products = self.workers.summed(inner_products(gradients, metric))
        return AdamProducts(products, second.stage, second.step, second.eps)

    def _whole(
        self, parameters: Mapping[str, nn.Parameter], gradients: Sequence[Gradient]
    ) -> dict[str, Streamed]:
        shapes = list(parameters.values())
        return {
            name: Streamed(shapes, one) for name, one in zip(self.probes, gradients, strict=True)
        }

    def _record(
        self,
        capture: Capture,
        examples: Sequence[TokenisedExample],
        to_logits: Callable[[Tensor], Tensor] | None,
        sketcher: Sketcher | None,
        collected: Collected,
    ) -> ProbeRecord:
        """Record one probe set; its gradient is left in the parameters."""
        rows = Rows(self.workers.mine(self.activations), to_logits, sketcher)
        forward, model = self._forward(capture), capture.model
        for batch, logits in backward_over(forward, self._batches(model, examples)):
            with self.autocast():
                rows.add(batch, logits, capture)
                collected.add(ProbeBatch(batch, logits, capture, model))
        with self.workers.unsharded(model), self.autocast():
            found = rows.joined()
        return gather_record(found, len(examples), self.workers)

    def _sketcher(self, model: nn.Module) -> Sketcher | None:
        if self.sketches is None:
            return None
        if self._known is None or not self._known.examples.fits(model):
            examples = PerExample(model, capture=self.capture, autocast=self.autocast)
            entries, seed = self.sketches
            self._known = Sketcher(examples, seed, entries)
        return self._known

    def _forward(self, forward: Forward) -> Forward:
        """Return the forward pass in the recorded precision."""

        def run(batch: Batch) -> Tensor:
            with self.autocast():
                return forward(batch)

        return run

    def _batches(self, model: nn.Module, examples: Sequence[TokenisedExample]) -> Iterator[Batch]:
        device = next(model.parameters()).device
        return batches_of(
            examples,
            self.reduction,
            self.batch_size,
            self.pad_id,
            device,
            self.width,
            self.workers.share,
        )
