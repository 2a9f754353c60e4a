"""What a quantity is: its variables, its options, how it is collected, and its cost.

Shapes: N examples and P target tokens of a batch, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from geomix.config.quantities import QuantityOptions
from geomix.data.batch import Batch
from geomix.data.example import TokenisedExample
from geomix.gradients.capture import Capture
from geomix.snapshots.variables import Variable

Arrays = Mapping[str, Tensor | NDArray[Any]]
"""By the variable's name."""


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """A batch of a probe set after its backward pass; read-only.

    Attributes:
        batch: of N examples, with P target tokens.
        logits: that predict those, `(P, V)`, detached.
        capture: holds the residual stream and its gradient at every layer, `(R, T, D)` each.
        model: in evaluation mode.
    """

    batch: Batch
    logits: Tensor
    capture: Capture
    model: nn.Module


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """A whole probe set after its last batch; read-only.

    Attributes:
        examples: of the set.
        model: in evaluation mode.
        gradients: of the set's mean loss, by the parameter's name; None where none leads there.
            Of sharded parameters, this process's shards.
    """

    examples: Sequence[TokenisedExample]
    model: nn.Module
    gradients: Mapping[str, Tensor | None]


@dataclass(frozen=True, slots=True)
class QuantityCost:
    """What a quantity takes beside the recorder's own pass, for the dry run.

    Attributes:
        passes: more forward and backward passes over a probe set.
        note: what else to know.
    """

    passes: float = 0.0
    note: str = ""


class Quantity:
    """A quantity of probe sets. Its first line of documentation is its summary.

    A variable whose first dimension is `example` or `position` is given batch by batch, by
    `collect`; any other once a set, by `finish`. The dimensions `example`, `position` and
    `parameter` are the file's own; others are declared in `coordinates`.

    Attributes:
        options: as the configuration gives them.
    """

    Options: ClassVar[type[QuantityOptions]] = QuantityOptions
    """Keys beside `name`, validated with file and line."""

    variables: ClassVar[tuple[Variable, ...]] = ()
    coordinates: ClassVar[Mapping[str, str]] = {}
    """What the labels of each of its own dimensions are."""

    weighted: ClassVar[frozenset[str]] = frozenset()
    """Variables that grow with an example's weight in the set's mean loss, as gradients do."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def lengths(self) -> Mapping[str, int]:
        """Lengths of its own dimensions, for the dry run."""
        return {}

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Names along its own dimensions; those without are numbered."""
        return {}

    def collect(self, seen: ProbeBatch) -> Arrays:  # noqa: ARG002
        """Give this batch's rows, `(N, …)` or `(P, …)`, in the batch's order."""
        return {}

    def finish(self, probe: ProbeSet) -> Arrays:  # noqa: ARG002
        """Give what is of the whole set."""
        return {}

    @classmethod
    def cost(cls, options: Any) -> QuantityCost:  # noqa: ARG003
        """What it takes."""
        return QuantityCost()

    def size(self, known: Mapping[str, int]) -> int:
        """Bytes of its numbers, from the lengths of the file's dimensions."""
        lengths = {**known, **self.lengths()}
        return sum(
            np.dtype("i1" if one.dtype == "bool" else one.dtype).itemsize
            * int(np.prod([lengths[dim] for dim in one.dims]))
            for one in self.variables
        )
