"""Geometry of single examples at one checkpoint of an arm, computed from its weights.

The record holds inner products of whole sets; finding which fact of D_A conflicts with which
example of D_B needs the gradient of every example, at a checkpoint's weights
(`geomix.experiments.checkpoints`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.layout import SlicedParameters
from geomix.analysis.parameter_groups import Kind, grouped
from geomix.analysis.past_checkpoints import probe_batches, probe_texts
from geomix.data.example import Example
from geomix.data.probes import HELD_OUT
from geomix.experiments.checkpoints import Revisit, StoredCheckpoint
from geomix.gradients.example_products import gram_matrices
from geomix.gradients.inner_products import trainable_parameters
from geomix.gradients.per_example import PerExample
from geomix.measures.cosine import Floats
from geomix.training.stage import Stage
from geomix.training.step import autocast
from geomix.util.errors import UserError

WHOLE = "all"
"""Group of all parameters: the whole model."""

_MOST_BYTES = 1 << 31
"""Most bytes of all groups' Gram matrices together."""


@dataclass(frozen=True, slots=True)
class ExampleGeometry:
    """Gram matrices of single examples' gradients at one checkpoint of one arm.

    An example's gradient is that of its share of its set's mean loss: the sum over a set's rows and
    columns is the set's inner product.

    Attributes:
        arm: its name.
        seed: its seed.
        checkpoint: `θ_0`, `θ_A`, `θ_A+4`, …
        reduction: of the mean loss, `token` or `example`.
        by: the grouping of the parameters.
        groups: g names: the whole model, then from the embedding to the head.
        sizes: `(g,)` parameters in each.
        sets: probe sets, length s.
        owners: `(N,)`, the set of each example.
        gram: `(g, N, N)` float64, nats² per squared unit of the parameters.
        texts: of the N examples.
        probes: for each set, the number of examples measured, and its size.
    """

    arm: str
    seed: int
    checkpoint: str
    reduction: str
    by: Kind
    groups: tuple[str, ...]
    sizes: NDArray[np.int64]
    sets: tuple[str, ...]
    owners: NDArray[np.int64]
    gram: Floats
    texts: tuple[Example, ...]
    probes: dict[str, tuple[int, int]]

    @property
    def sampled(self) -> tuple[float, ...]:
        """Share of each set that is measured: 1 is the whole set, whose gradient is exact.

        The held-out set is always a sample of its template, however many examples are measured:
        nothing is trained on it, so its own gradient is not the target.
        """
        return tuple(
            0.0 if name == HELD_OUT else n / of
            for name, (n, of) in ((name, self.probes[name]) for name in self.sets)
        )


def example_geometry(
    past: Revisit, stored: StoredCheckpoint, stage: Stage, by: Kind, most: int
) -> ExampleGeometry:
    """Compute the Gram matrices of the probe sets' first examples, by group of parameters.

    Order, tokens, reduction and precision are the recorder's. A larger set is represented by its
    first examples, as in the record.

    Args:
        past: the arm.
        stored: the checkpoint.
        stage: the stage of the checkpoint.
        by: the grouping of the parameters.
        most: largest number of examples of each set.

    Raises:
        UserError: the arm has no probe sets, the matrices would be too large, the checkpoint cannot
            be used, or a parameter's gradient cannot be computed by example.
    """
    whole, train = past.prepared.probes, past.config.stages[0].train
    if past.config.record is None or not whole:
        raise UserError(
            f"{past.arm.path}: no probe sets, so that no examples can be looked at; "
            "give the configuration a `record:` section"
        )
    probes = probe_texts(past, most)
    texts = [example for examples in probes.values() for example in examples]
    loaded, event = past.event(stored, stage)
    layout = SlicedParameters.of(
        loaded.model, trainable_parameters(loaded.model), heads=False
    ).layout
    names, index = grouped(layout, by)
    _check_size(past, len(names) + 1, len(texts))
    batches = [batch for one in probe_batches(past, loaded, most).values() for batch in one]
    recorded = partial(autocast, train.precision, loaded.device)
    examples = PerExample(loaded.model, capture="hooks", autocast=recorded)
    gram = np.zeros((len(names) + 1, len(texts), len(texts)))
    for group, (_, products) in zip(index, gram_matrices(examples, batches), strict=True):
        gram[1 + group] += products.numpy()
        gram[0] += products.numpy()
    return ExampleGeometry(
        arm=past.arm.name,
        seed=past.config.seed,
        checkpoint=NamedCheckpoint(stored.stage, stored.step, event.last, train.loss).label,
        reduction=train.loss,
        by=by,
        groups=(WHOLE, *names),
        sizes=np.array([layout.sizes.sum(), *np.bincount(index, weights=layout.sizes)], np.int64),
        sets=tuple(probes),
        owners=np.repeat(np.arange(len(probes)), [len(one) for one in probes.values()]),
        gram=gram,
        texts=tuple(texts),
        probes={name: (len(one), len(whole[name])) for name, one in probes.items()},
    )


def _check_size(past: Revisit, groups: int, examples: int) -> None:
    needed = 8 * groups * examples**2
    if needed > _MOST_BYTES:
        raise UserError(
            f"{past.arm.path}: the products of {examples} examples in {groups} groups take "
            f"{needed / 2**30:.0f} GiB; look at fewer examples, or group by layer"
        )
