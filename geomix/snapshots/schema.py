"""Contents of a snapshot.

Shapes: N examples, P positions that predict a target token, Q of them with activations, L layers
+ 1, D features, M parameter tensors, S probe sets, J parts of an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomix.snapshots.variables import Block


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """Outputs of one module where activations are stored, F features.

    Attributes:
        activations: `(Q, F)` float32, its output; several feature dimensions are flattened.
        gradients: `(Q, F)` float32, gradient of the set's mean loss there, nats per unit.
    """

    activations: NDArray[np.float32]
    gradients: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SketchRecord:
    """Random projections of every example's gradient, K entries for each parameter tensor.

    Attributes:
        values: `(N, M, K)` float32, of the gradient of the example's share of the set's mean loss,
            so that the sum over examples is the sketch of the set's gradient; nats per unit.
        seed: of the projections (`geomix.measures.sketch.projection`).
    """

    values: NDArray[np.float32]
    seed: int


@dataclass(frozen=True, slots=True)
class QuantityRecord:
    """One quantity of a probe set (`geomix.recording.quantities`).

    Attributes:
        block: its variables.
        arrays: their values by name.
        labels: names along its own dimensions, if they have any.
    """

    block: Block
    arrays: Mapping[str, NDArray[Any]]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """The model's results on one probe set.

    Attributes:
        loss: `(N,)` float64, mean negative log-likelihood of the example's target tokens, nats.
        exact: `(N,)` bool, every target token is the argmax given the true tokens before it.
        offsets: `(N + 1,)` int64; example i owns rows `offsets[i]:offsets[i + 1]` of all below.
        positions: `(P,)` int64, index in the example of the token that predicts a target token.
        targets: `(P,)` int64, id of the target token that is predicted there.
        activations: `(Q, L, D)` float32 residual stream at the first Q of the P positions, those of
            the examples that store it; entry 0 is the input of the first layer, entry l the output
            of layer l, before the final norm. None if none are stored or read.
        gradients: `(Q, L, D)` float32, gradient of the set's mean loss (in the snapshot's
            reduction) at the same locations, nats per unit of the activation. None like
            `activations`.
        lens_rank: `(Q, L)` int32, rank of the target token if the model ended after each layer, see
            `geomix.gradients.logit_lens`; None if not stored.
        lens_logprob: `(Q, L)` float32, its log-probability then, nats; None if not stored.
        modules: outputs of other modules by name.
        sketches: of every example's gradient; None if not stored or read.
        quantities: by name; empty in a snapshot that was read: `Records` reads them.
    """

    loss: NDArray[np.float64]
    exact: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    activations: NDArray[np.float32] | None
    gradients: NDArray[np.float32] | None
    lens_rank: NDArray[np.int32] | None = None
    lens_logprob: NDArray[np.float32] | None = None
    modules: Mapping[str, ModuleRecord] = field(default_factory=dict)
    sketches: SketchRecord | None = None
    quantities: Mapping[str, QuantityRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdamProducts:
    """Inner products in Adam's metric.

    Attributes:
        products: `(M, S, S)` float64, g_aᵀ diag(1 / (√v̂ + ε)) g_b; NaN for an untrained parameter,
            which has no v̂.
        stage: index of the stage of this v̂ (bias-corrected).
        step: optimiser steps done in that stage then.
        eps: ε.
    """

    products: NDArray[np.float64]
    stage: int
    step: int
    eps: float


NODES = ("start", "middle", "end")
"""Nodes on the straight line between two snapshots at which a gradient is computed."""

PAIR_NODES = ("start", "end")
"""Nodes on the straight line between every other snapshot."""

TOTAL = "total"
"""Name of the whole update; its other parts are named as in
`geomix.training.observer.TrainingEvent.update`."""


@dataclass(frozen=True, slots=True)
class PathRecord:
    """Change of each set's loss along the straight line from the previous snapshot.

    Attributes:
        products: `(M, S, 3, J)` float64, gradient of the set's mean loss at each node, times each
            part of the update; nats.
        parts: their names: `total` first, then, if known, the sources and `decay`, which sum to the
            total up to rounding.
        from_step: of the previous snapshot, in the same stage.
        to_step: of this one.
        pair: `(M, S, 2, J)` float64, for this segment and the previous one merged into one straight
            line: gradients at its two ends, times the parts of both steps together; nats. It is
            what a record of every other snapshot would hold, and no sum over `products` gives it;
            None if not stored.
        pair_from_step: start of that line; -1 if there is none.
    """

    products: NDArray[np.float64]
    parts: tuple[str, ...]
    from_step: int
    to_step: int
    pair: NDArray[np.float64] | None = None
    pair_from_step: int = -1


ORIGIN = ("model", "seed", "precision", "chat_template", "training_sha256")
"""Origin of a snapshot's model: θ_0's name, the run's seed, the precision of the passes, the chat
format, and the hash of all configuration keys that decide the training."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The model at one step, measured on its probe sets.

    Attributes:
        stage: index of the stage, from 0.
        stage_name: its name.
        step: optimiser steps done in the stage.
        steps: optimiser steps of the whole stage.
        reduction: `token` or `example`, the mean of `gradients` and `inner_products`.
        sets: names of the probe sets, S of them, in the order of `inner_products`.
        probes: one record a set.
        parameters: names of the parameter tensors covered, M of them; tied ones once.
        sizes: `(M,)` int64, elements of each.
        parameter_layers: `(M,)` int64, 0 before the first block, l in block l, `layers` + 1 after.
        parameter_modules: module within the layer, M of them.
        inner_products: `(M, S, S)` float64, inner products of the sets' mean-loss gradients.
        layers: decoder layers of the model.
        tied_head: whether the output head shares the embedding's tensor.
        trainable: parameter tensors with `requires_grad`; a snapshot covers them all.
        unreached: `(M, S)` bool, parameters that the set's loss does not depend on: gradient zero.
        adam: the inner products in Adam's metric; None if there is none yet, or not requested.
        path: from the previous snapshot to this one; None if there is none.
        no_path: reason why there is none, for a reader.
        origin: of the model, as text or numbers by name (`ORIGIN`).
        hashes: SHA-256 of each probe set's token ids and labels.
        gradients: of each set, its whole gradient, one parameter tensor after the other as float32;
            None if not stored, and in a snapshot that was read: those are read one by one.
    """

    stage: int
    stage_name: str
    step: int
    steps: int
    reduction: str
    sets: tuple[str, ...]
    probes: dict[str, ProbeRecord]
    parameters: tuple[str, ...]
    sizes: NDArray[np.int64]
    parameter_layers: NDArray[np.int64]
    parameter_modules: tuple[str, ...]
    inner_products: NDArray[np.float64]
    layers: int
    tied_head: bool
    trainable: int
    unreached: NDArray[np.bool_]
    adam: AdamProducts | None = None
    path: PathRecord | None = None
    no_path: str = "not asked for"
    origin: Mapping[str, str | int] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, Iterable[NDArray[np.float32]]] | None = None
