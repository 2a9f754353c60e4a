"""Geometry of a run's gradients from its weights, beyond what its record holds.

At each checkpoint with weights: the gradients of the probe sets, split by attention head if
requested; the stage's update; the gradient of D_M with shuffled labels; and the secant of every set
from the stage's start. In the Euclidean metric or in Adam's, with one v̂ for all arms of a run.

Shapes: p parameter tensors or slices of them, S probe sets, d directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.directions import UPDATE, is_shuffled
from geomix.analysis.layout import Gradient, Metric, SlicedParameters
from geomix.analysis.measurement import Measurement, Secant
from geomix.analysis.partial_results import ArmResults, Unfinished
from geomix.analysis.past_checkpoints import gradients, ignored, named_checkpoint
from geomix.experiments.checkpoints import Revisit, StoredCheckpoint
from geomix.gradients.inner_products import inner_products, trainable_parameters, undisturbed
from geomix.gradients.spill import in_memory, on_disk
from geomix.training.observer import SecondMoments
from geomix.training.stage import Stage
from geomix.util.progress import during, phase


def measurements(
    past: Revisit,
    wanted: Callable[[NamedCheckpoint], bool],
    kept: ArmResults | None = None,
    *,
    heads: bool = False,
    metric: SecondMoments | None = None,
) -> Iterator[Measurement]:
    """Yield the measurements at an arm's checkpoints, in order.

    Args:
        past: the arm.
        wanted: selects among the checkpoints with weights.
        kept: results computed earlier; receives new ones.
        heads: whether attention parameters are split by head.
        metric: v̂ of Adam's metric; None is the Euclidean one.

    Raises:
        UserError: a checkpoint is damaged, the data has changed, or heads are requested for a model
            whose attention is unknown.
    """
    stages = past.stages()
    checkpoints = past.checkpoints(ignored)
    chosen = [stored for stored in checkpoints if wanted(named_checkpoint(past, stored))]
    kept = kept or ArmResults(Unfinished(), "")
    known = {p: found for p in chosen if (found := kept.measurement(p)) is not None}
    updates = _Updates(past, checkpoints)
    start: _Start | None = None
    for stored in checkpoints:
        ahead = _stage_ahead(stored, checkpoints)
        begins = _begins(stored) and any(_needs_start(p, ahead) for p in chosen if p not in known)
        if stored in known:
            yield known[stored]
        if (stored not in chosen or stored in known) and not begins:
            continue
        here = _AtCheckpoint.at(past, stored, stages[stored.stage])
        if stored in chosen and stored not in known:
            measurement = here.measurement(updates.of(ahead), start, heads=heads, metric=metric)
            kept.keep_measurement(stored, measurement)
            yield measurement
        if stored.last or start is None:
            start = here.start() if begins else None


def _begins(stored: StoredCheckpoint) -> bool:
    return stored.last or stored.folder is None


def _needs_start(stored: StoredCheckpoint, stage: int) -> bool:
    """Return whether a checkpoint is compared with a stage's start; θ_A itself is not with θ_0."""
    return stored.stage == stage and (stage > 0 or not _begins(stored))


def _stage_ahead(stored: StoredCheckpoint, checkpoints: Sequence[StoredCheckpoint]) -> int:
    """Return the stage whose update a checkpoint is compared with, see `UPDATE`."""
    after = any(p.stage == stored.stage + 1 for p in checkpoints)
    return stored.stage + 1 if stored.last and after else stored.stage


@dataclass(frozen=True, slots=True)
class _Start:
    """Start of a stage: all weights, and the sets' gradients of those that train."""

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Mapping[str, Tensor | None]]


class _Updates:
    """Descent direction −Δθ of each finished stage, by parameter name; caches one stage."""

    def __init__(self, past: Revisit, checkpoints: Sequence[StoredCheckpoint]) -> None:
        self._past = past
        self._ends = {p.stage: p for p in checkpoints if p.last}
        self._base = checkpoints[0]
        self._held: tuple[int, dict[str, Tensor]] | None = None

    def of(self, stage: int) -> dict[str, Tensor] | None:
        """Return −Δθ; None if the stage did not end, or its start is unknown."""
        begin = self._ends.get(stage - 1) if stage else self._base
        end = self._ends.get(stage)
        if begin is None or end is None:
            return None
        if self._held is None or self._held[0] != stage:
            self._held = None
            first, last = self._past.weights(begin), self._past.weights(end)
            names = list(last)
            update = [first.pop(name).float().sub_(last.pop(name)) for name in names]
            self._held = stage, _kept(self._past, dict(zip(names, update, strict=True)))
        return self._held[1]


def _kept(past: Revisit, tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """Return the same numbers, on the disk if the arm's recorder stored its gradients there."""
    record = past.config.record
    on_the_disk = record is not None and record.scratch == "disk"
    keep = on_disk(past.arm.analysis_folder) if on_the_disk else in_memory
    kept = keep(list(tensors.values()))
    return dict(zip(tensors, kept, strict=True))


@dataclass(frozen=True, slots=True)
class _AtCheckpoint:
    """A checkpoint's model, with the gradients of its sets by the parameter's name."""

    past: Revisit
    checkpoint: NamedCheckpoint
    model: nn.Module
    parameters: dict[str, nn.Parameter]
    gradients: dict[str, dict[str, Tensor | None]]

    @classmethod
    def at(cls, past: Revisit, stored: StoredCheckpoint, stage: Stage) -> _AtCheckpoint:
        here, found = named_checkpoint(past, stored), {}
        sets = len(past.prepared.probes)
        with phase(f"{past.arm.name}: gradients at {here.label}, sets", sets) as advance:
            loaded, event = past.event(stored, stage)
            parameters = trainable_parameters(event.model)
            with undisturbed(event.model):
                for name, one in gradients(past, loaded, parameters):
                    found[name] = _kept(past, dict(zip(parameters, one, strict=True)))
                    advance(int(not is_shuffled(name)))
        return cls(past, here, event.model, parameters, found)

    def start(self) -> _Start:
        """Return the reference for later checkpoints of the stage that starts here."""
        named = self.model.named_parameters()
        weights = {name: p.detach().float().cpu() for name, p in named}
        return _Start(_kept(self.past, weights), self.gradients)

    @during(lambda here, *_, **__: f"{here.past.arm.name}: angles at {here.checkpoint.label}")
    def measurement(
        self,
        update: Mapping[str, Tensor] | None,
        start: _Start | None,
        *,
        heads: bool,
        metric: SecondMoments | None,
    ) -> Measurement:
        """Return everything measured at the checkpoint."""
        sliced = SlicedParameters.of(self.model, self.parameters, heads=heads)
        weights = None if metric is None else sliced.metric(metric)
        named: dict[str, Gradient] = {n: sliced.split(g) for n, g in self.gradients.items()}
        if update is not None:
            named[UPDATE] = (
                sliced.split(update) if metric is None else sliced.lowered(update, metric)
            )
        sets = tuple(name for name in self.gradients if not is_shuffled(name))
        inner = inner_products(list(named.values()), weights)
        secant = None
        if start is not None and not (self.checkpoint.is_boundary and not self.checkpoint.end):
            secant = self._secant(sets, start, sliced, weights)
        return Measurement(self.checkpoint, sliced.layout, sets, tuple(named), inner, secant)

    def _secant(
        self, sets: Sequence[str], start: _Start, sliced: SlicedParameters, weights: Metric | None
    ) -> Secant | None:
        if any(name not in start.gradients[sets[0]] for name in self.parameters):
            return None  # the stage trains parameters that the previous one did not
        moved = {
            name: p.detach().float().cpu() - start.weights[name]
            for name, p in self.parameters.items()
        }
        count = len(sets)
        everything = [
            *(sliced.split(self.gradients[name]) for name in sets),
            *(sliced.split(start.gradients[name]) for name in sets),
        ]
        plain = inner_products([*everything, sliced.split(moved)])
        inner = plain if weights is None else inner_products(everything, weights)
        each = np.arange(count)
        squares = inner[:, each, each] + inner[:, count + each, count + each]
        turned = squares - 2 * inner[:, each, count + each]
        return Secant(
            here=plain[:, :count, -1],
            start=plain[:, count : 2 * count, -1],
            turned=np.maximum(turned, 0),
            moved=plain[:, -1, -1],
        )
