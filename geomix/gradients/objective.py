"""What the theory asks of a loss: values, gradients and products with its second derivatives.

Analyses compute on these protocols, so that they can be checked on quadratics and cubics.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from geomix.gradients.vectors import Vector


class Products(Protocol):
    """Products with second derivatives at fixed weights."""

    def hessian(self, v: Vector) -> dict[str, Tensor]:
        """The Hessian times `v`, in nats per unit of the weights."""

    def gauss_newton(self, v: Vector) -> dict[str, Tensor]:
        """The generalised Gauss–Newton matrix times `v`; see `Objective.gauss_newton_product`."""


class Objective(Protocol):
    """The mean loss L(θ; D) of one whole set, in nats, at the model's present weights."""

    def loss(self) -> float:
        """The loss; sums are in float64."""

    def gradient(self) -> dict[str, Tensor]:
        """The gradient with respect to the parameters that train."""

    def loss_and_gradient(self) -> tuple[float, dict[str, Tensor]]:
        """Both of one pass."""

    def hessian_product(self, v: Vector) -> dict[str, Tensor]:
        """The Hessian times `v`, by reverse over reverse; nothing is kept, about 3 gradients."""

    def gauss_newton_product(self, v: Vector) -> dict[str, Tensor]:
        """The matrix `Σ w Jᵀ (diag p − ppᵀ) J` times `v`: the outputs' own curvature.

        J is the Jacobian of the logits of a target token, p its softmax, w its weight in the mean
        (Schraudolph, *Fast curvature matrix-vector products*, 2002). Positive semidefinite.
        """

    def kept(self) -> AbstractContextManager[Products]:
        """Products at the present weights, about 2 gradients each while the graph is kept."""


class Weights(Protocol):
    """A model whose weights can be exchanged."""

    def here(self) -> dict[str, Tensor]:
        """The weights of the parameters that train, as they are; not to be written to."""

    def move_to(self, weights: Vector) -> None:
        """Take the tensors in the place of the weights, without a copy."""
