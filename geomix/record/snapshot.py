"""What a snapshot holds.

Shapes: N examples, P positions that predict a target token, Q of them with activations, L layers
+ 1, D features, M parameter tensors, S probe sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    loss: NDArray[np.float64]
    exact: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    activations: NDArray[np.float32] | None
    gradients: NDArray[np.float32] | None


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
