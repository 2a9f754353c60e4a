"""Interface of a quantity: its variables, its options, its collection, and its cost.

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
"""Arrays by the variable's name."""


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """A batch of a probe set after its backward pass; read-only.

    Attributes:
        batch: the batch, with N examples and P target tokens.
        logits: the logits that predict those, `(P, V)`, detached.
        capture: the residual stream and its gradient at every layer, `(R, T, D)` each.
        model: the model, in evaluation mode.
    """

    batch: Batch
    logits: Tensor
    capture: Capture
    model: nn.Module


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """A whole probe set after its last batch; read-only.

    Attributes:
        examples: the set's examples.
        model: the model, in evaluation mode.
        gradients: gradients of the set's mean loss, by the parameter's name; None if no path leads
            there. Of sharded parameters, this process's shards.
    """

    examples: Sequence[TokenisedExample]
    model: nn.Module
    gradients: Mapping[str, Tensor | None]


@dataclass(frozen=True, slots=True)
class QuantityCost:
    """Cost of a quantity beyond the recorder's own pass, for the dry run.

    Attributes:
        passes: further forward and backward passes over a probe set.
        note: further remarks.
    """

    passes: float = 0.0
    note: str = ""


class Quantity:
    """A quantity of probe sets. The first line of its docstring is its summary.

    A variable whose first dimension is `example` or `position` is returned batch by batch, by
    `collect`; any other once per set, by `finish`. The dimensions `example`, `position` and
    `parameter` are the file's own; others are declared in `coordinates`.

    Attributes:
        options: the options from the configuration.
    """

    Options: ClassVar[type[QuantityOptions]] = QuantityOptions
    """Class of the keys beside `name`, which are validated with file and line."""

    variables: ClassVar[tuple[Variable, ...]] = ()
    coordinates: ClassVar[Mapping[str, str]] = {}
    """Meaning of the labels of each of its own dimensions."""

    weighted: ClassVar[frozenset[str]] = frozenset()
    """Variables proportional to an example's weight in the set's mean loss, like gradients."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def lengths(self) -> Mapping[str, int]:
        """Return the lengths of its own dimensions, for the dry run."""
        return {}

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Return names along its own dimensions; dimensions without names are numbered."""
        return {}

    def collect(self, seen: ProbeBatch) -> Arrays:  # noqa: ARG002
        """Return this batch's rows, `(N, …)` or `(P, …)`, in the batch's order."""
        return {}

    def finish(self, probe: ProbeSet) -> Arrays:  # noqa: ARG002
        """Return the variables of the whole set."""
        return {}

    @classmethod
    def cost(cls, options: Any) -> QuantityCost:  # noqa: ARG003
        """Return the cost."""
        return QuantityCost()

    def size(self, known: Mapping[str, int]) -> int:
        """Return the bytes of its numbers, from the lengths of the file's dimensions."""
        lengths = {**known, **self.lengths()}
        return sum(
            np.dtype("i1" if one.dtype == "bool" else one.dtype).itemsize
            * int(np.prod([lengths[dim] for dim in one.dims]))
            for one in self.variables
        )
