"""What a snapshot holds.

Shapes: N examples, P positions that predict a target token, Q of them with activations, L layers
+ 1, D features, M parameter tensors, S probe sets, J parts of an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """What one module gives out where activations are kept, F features.

    Attributes:
        activations: `(Q, F)` float32, its output; the features of several dimensions in a row.
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
class ProbeRecord:
    """What the model does on one probe set.

    Attributes:
        loss: `(N,)` float64, mean negative log-likelihood of the example's target tokens, nats.
        exact: `(N,)` bool, every target token is the argmax given the true tokens before it.
        offsets: `(N + 1,)` int64; example i owns rows `offsets[i]:offsets[i + 1]` of all below.
        positions: `(P,)` int64, index in the example of the token that predicts a target token.
        targets: `(P,)` int64, id of the target token that is predicted there.
        activations: `(Q, L, D)` float32 residual stream at the first Q of the P positions, those
            of the examples that keep it; entry 0 is the input of the first layer, entry l the
            output of layer l, before the final norm. None if none are kept or read.
        gradients: `(Q, L, D)` float32, gradient of the set's mean loss (in the snapshot's
            reduction) at the same places, nats per unit of the activation. None like `activations`.
        lens_rank: `(Q, L)` int32, rank of the target token if the model ended after each layer, see
            `geomix.gradients.logit_lens`; None if not kept.
        lens_logprob: `(Q, L)` float32, its log-probability then, nats; None if not kept.
        modules: outputs of other modules by name.
        sketches: of every example's gradient; None if not kept or read.
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


@dataclass(frozen=True, slots=True)
class AdamProducts:
    """Inner products in Adam's metric.

    Attributes:
        products: `(M, S, S)` float64, g_aᵀ diag(1 / (√v̂ + ε)) g_b; NaN for a parameter that has no
            v̂, as it was not trained.
        stage: index of the stage whose v̂ (bias-corrected) it is.
        step: optimiser steps done in that stage then.
        eps: ε.
    """

    products: NDArray[np.float64]
    stage: int
    step: int
    eps: float


NODES = ("start", "middle", "end")
"""Where on the straight line between two snapshots a gradient is taken."""

PAIR_NODES = ("start", "end")
"""Where on the straight line between every other snapshot."""

TOTAL = "total"
"""The whole update; its other parts have the names of `geomix.training.observer.Moment.update`."""


@dataclass(frozen=True, slots=True)
class PathRecord:
    """What the loss of each set does on the straight line from the snapshot before.

    Attributes:
        products: `(M, S, 3, J)` float64, gradient of the set's mean loss at each node, times each
            part of the update; nats.
        parts: their names: `total` first, then where they are known the sources and `decay`, which
            sum to the total but for rounding.
        from_step: of the snapshot before, in the same stage.
        to_step: of this one.
        pair: `(M, S, 2, J)` float64, of the piece that led to the snapshot before and this one
            taken as one straight line: gradients at its two ends, times the parts of both steps
            together; nats. What a record of every other snapshot would hold, and what no sum over
            `products` gives; None where it is not kept.
        pair_from_step: where that line begins; -1 where there is none.
    """

    products: NDArray[np.float64]
    parts: tuple[str, ...]
    from_step: int
    to_step: int
    pair: NDArray[np.float64] | None = None
    pair_from_step: int = -1


ORIGIN = ("model", "seed", "precision", "chat_template", "training_sha256")
"""What tells the model of a snapshot: θ_0's name, the run's seed, the precision of the passes, the
chat format, and the hash of all keys of the configuration that decide the training."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The model at one step, as its probe sets show it.

    Attributes:
        stage: index of the stage, from 0.
        stage_name: its name.
        step: optimiser steps done in the stage.
        steps: optimiser steps of the whole stage.
        reduction: `token` or `example`, the mean that `gradients` and `inner_products` are of.
        sets: names of the probe sets, S of them, in the order of `inner_products`.
        probes: one record a set.
        parameters: names of the parameter tensors covered, M of them; tied ones once.
        sizes: `(M,)` int64, elements of each.
        parameter_layers: `(M,)` int64, layer from 0; -1 before the layers, `layers` behind them.
        parameter_modules: module within the layer, M of them.
        inner_products: `(M, S, S)` float64, inner products of the sets' mean-loss gradients.
        layers: decoder layers of the model.
        tied_head: whether the output head shares the embedding's tensor.
        trainable: parameter tensors with `requires_grad`; a snapshot covers them all.
        unreached: `(M, S)` bool, to which parameters no gradient of the set's loss leads: zero.
        adam: the inner products in Adam's metric; None where there is none yet, or not asked for.
        path: from the snapshot before to this one; None if there is none.
        no_path: why not, for a reader.
        origin: what it is of, as text or numbers by name (`ORIGIN`).
        hashes: SHA-256 of each probe set's token ids and labels.
        gradients: of each set, its whole gradient, one parameter tensor after the other as float32;
            None if not kept, and for one that was read: those are read one by one.
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
