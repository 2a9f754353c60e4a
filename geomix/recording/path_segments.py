"""Change of each set's loss along the segment from one snapshot to the next.

On the straight line from θ_k to θ_k+1 a loss changes by the integral of g·dθ. The integrand's
values at the start, the middle and the end are recorded, for every parameter tensor and every part
of the step, so that Simpson's rule is a sum over the file (`geomix.measures.line_integral`).

Memory beyond the snapshot's own: the weights of the previous snapshot, those of the midpoint while
they are in use, and one copy of the weights for each source whose part is known. With pairs the
gradients, weights and parts of the previous segment are kept until its successor ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomix.gradients.inner_products import products_with
from geomix.models.distributed import ALONE, Workers, local
from geomix.snapshots.schema import TOTAL, PathRecord
from geomix.training.observer import TrainingEvent

Gradient = Sequence[Tensor | None]
"""Gradient of one set: one tensor a parameter, None where the loss does not depend on it."""


@dataclass
class Segment:
    """Segment of the path, from one snapshot to the next of its stage.

    Attributes:
        stage: index of the stage.
        step: its start.
        weights: at the start, by the parameter's name.
        gradients: at the start, one a set; released once they are used.
        workers: the processes that hold shards of all this.
        parts: sums of the parts of the steps since then, by part and by the parameter's name.
        before: the previous segment, if the two are also recorded as a pair.
    """

    stage: int
    step: int
    weights: dict[str, Tensor]
    gradients: list[Gradient]
    workers: Workers = ALONE
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    before: Segment | None = None

    @classmethod
    def begin(
        cls,
        event: TrainingEvent,
        parameters: Mapping[str, nn.Parameter],
        gradients: list[Gradient],
        workers: Workers = ALONE,
        before: Segment | None = None,
    ) -> Segment:
        """Start a segment at the model's present weights."""
        weights = {name: local(p.detach()).clone() for name, p in parameters.items()}
        return cls(event.stage, event.step, weights, gradients, workers, before=before)

    def leads_to(self, event: TrainingEvent, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Return whether training continued from the segment's start to that event."""
        later = event.stage == self.stage and event.step > self.step
        return later and list(self.weights) == list(parameters)

    def add(self, update: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Add the parts of one step."""
        for part, moves in update.items():
            known = self.parts.setdefault(part, {})
            for name, move in moves.items():
                mine = local(move)
                known[name] = known[name] + mine if name in known else mine.clone()

    def end(
        self,
        event: TrainingEvent,
        parameters: Mapping[str, nn.Parameter],
        middle: Callable[[], Iterator[Gradient]],
        keep: bool = False,
    ) -> Callable[[Sequence[Gradient]], PathRecord]:
        """Compute the products at the start and at the midpoint.

        Args:
            event: the segment's end.
            parameters: of the model, at the end; unchanged on return.
            middle: yields each set's gradient at the model's present weights.
            keep: whether its gradients are kept for the next segment.

        Returns:
            A function from the gradients at the end to the record.
        """
        ends = {name: local(p.detach()) for name, p in parameters.items()}
        start = _products((self,), ends, self.gradients)
        both = self._with_before()
        wide = _products(both, ends, both[0].gradients) if both else None
        if both:
            both[0].gradients = []
        if not keep:
            self.gradients = []
        self.before = None
        between = {name: torch.lerp(self.weights[name], ends[name], 0.5) for name in ends}
        with weights_of(parameters, between) as own:

            def along(gradient: Gradient) -> NDArray[np.float64]:
                return _products((self,), own, [gradient])

            # `map` lets each gradient go before the next one is computed, a loop's variable not.
            found = list(map(along, middle()))
        del between

        def record(gradients: Sequence[Gradient]) -> PathRecord:
            last = _products((self,), ends, gradients)
            products = np.stack([start, np.concatenate(found, axis=1), last], axis=2)
            return PathRecord(
                self.workers.summed(products),
                (TOTAL, *sorted(self.parts)),
                self.step,
                event.step,
                *self._pair(both, wide, ends, gradients),
            )

        return record

    def _with_before(self) -> tuple[Segment, ...]:
        """Return the previous segment and this one; empty if there is none, or its parts differ."""
        fits = self.before is not None and self.before.parts.keys() == self.parts.keys()
        return (self.before, self) if self.before is not None and fits else ()

    def _pair(
        self,
        both: tuple[Segment, ...],
        start: NDArray[np.float64] | None,
        ends: Mapping[str, Tensor],
        gradients: Sequence[Gradient],
    ) -> tuple[()] | tuple[NDArray[np.float64], int]:
        """Return the products at the ends of both segments together, and their start."""
        if start is None:
            return ()
        pair = np.stack([start, _products(both, ends, gradients)], axis=2)
        return self.workers.summed(pair), both[0].step


def _products(
    segments: Sequence[Segment], ends: Mapping[str, Tensor], gradients: Sequence[Gradient]
) -> NDArray[np.float64]:
    """Return `(M, S, J)` products of gradients with the whole step of segments and its parts."""
    return np.stack(
        [
            products_with([g[index] for g in gradients], _updates(segments, name, end), end.numel())
            for index, (name, end) in enumerate(ends.items())
        ]
    )


def _updates(segments: Sequence[Segment], name: str, end: Tensor) -> Callable[[int, int], Tensor]:
    begin, after = segments[0].weights[name].reshape(-1), end.reshape(-1)
    names = sorted(segments[-1].parts)
    parts = [[segment.parts[part][name].reshape(-1) for segment in segments] for part in names]

    def some(first: int, last: int) -> Tensor:
        total = after[first:last].double() - begin[first:last].double()
        sums = [torch.stack([m[first:last].double() for m in moves]).sum(0) for moves in parts]
        return torch.stack([total, *sums])

    return some


@contextmanager
def weights_of(
    parameters: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Replace the parameters' weights within the block; then restore them bit for bit.

    Args:
        parameters: of a model; a sharded one's memory belongs to its shards, and is written to.
        others: by name; this process's shards if the parameters are sharded.

    Yields:
        The original weights, by name, likewise; tensors that share a sharded one's memory show the
        replacements.
    """
    held = {name: p.data for name, p in parameters.items()}  # each access makes another tensor
    kept = {name: local(data).clone() for name, data in held.items() if local(data) is not data}
    own = {name: data for name, data in held.items() if name not in kept}
    try:
        for name, parameter in parameters.items():
            if name in kept:
                local(parameter.data).copy_(others[name])
            else:
                parameter.data = others[name]
        yield {name: kept.get(name, data) for name, data in held.items()}
    finally:
        for name, data in own.items():
            parameters[name].data = data
        for name, shard in kept.items():
            local(parameters[name].data).copy_(shard)
