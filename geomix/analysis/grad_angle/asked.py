"""Options of `geomix analyze grad-angle`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geomix.analysis.options import option, planned, smallest
from geomix.analysis.parameter_groups import Kind

MetricName = Literal["euclidean", "adam"]

From = Literal["auto", "record", "weights"]
"""Source of the angles: `auto` uses weights where they are kept, from the end of stage 1 on, since
they allow more, and the record elsewhere."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the measurement.

    Attributes:
        sets: the two sets to compare: the one whose loss is in question, and the one whose training
            may raise it.
        at: checkpoints, see `geomix.analysis.checkpoints.chosen`; empty for all.
        by: grouping of the parameters.
        metric: metric of the inner products.
        source: source of the angles.
        examples: number of examples of each set whose single gradients are compared; 0 for none.
        smallest: effect of interest, a cosine; None if none was declared.
        planned: paired seeds that a verdict needs.
    """

    sets: tuple[str, ...] = option(
        ("D_A", "D_B"),
        "The two sets that are compared: whose loss is in question, and what may raise it.",
        metavar="SET,SET",
    )
    at: tuple[str, ...] = option(
        (),
        "Only these moments: 0, A, B, +4 (steps into a later stage), A+4; with commas, or again.",
        metavar="MOMENT",
    )
    by: Kind = option("layer", "What a row of the table stands for.")
    metric: MetricName = option(
        "euclidean", "Of the inner products; Adam's has one v̂ for all arms of a run."
    )
    source: From = option(
        "auto",
        "What it is taken from; auto: the weights where they are kept, else the record.",
        flag="--from",
    )
    examples: int = option(
        64,
        "Of each set, whose single gradients are compared where weights are kept; 0: none.",
        least=0,
    )

    smallest: float | None = smallest("a cosine")
    planned: int = planned()

    @property
    def needs_weights(self) -> bool:
        """True if no record can provide the result."""
        return self.by == "head" or self.metric == "adam" or self.source == "weights"
