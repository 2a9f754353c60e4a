"""Protocols of a loss: values, gradients and products with its second derivatives.

Analyses compute on these protocols, so that they can be tested on quadratics and cubics.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from geomix.gradients.vectors import Vector


class Products(Protocol):
    """Products with second derivatives at fixed weights."""

    def hessian(self, v: Vector) -> dict[str, Tensor]:
        """Return the Hessian times `v`, in nats per unit of the weights."""

    def gauss_newton(self, v: Vector) -> dict[str, Tensor]:
        """Return the Gauss–Newton matrix times `v`; see `Objective.gauss_newton_product`."""


class Objective(Protocol):
    """The mean loss L(θ; D) of one whole set, in nats, at the model's present weights."""

    def loss(self) -> float:
        """Return the loss, summed in float64."""

    def gradient(self) -> dict[str, Tensor]:
        """Return the gradient with respect to the parameters that train."""

    def loss_and_gradient(self) -> tuple[float, dict[str, Tensor]]:
        """Return both from one pass."""

    def hessian_product(self, v: Vector) -> dict[str, Tensor]:
        """Return the Hessian times `v`, by reverse over reverse; costs about 3 gradients."""

    def gauss_newton_product(self, v: Vector) -> dict[str, Tensor]:
        """Return `Σ w Jᵀ (diag p − ppᵀ) J` times `v`: the curvature of the outputs.

        J is the Jacobian of the logits of a target token, p its softmax, w its weight in the mean
        (Schraudolph, *Fast curvature matrix-vector products*, 2002). Positive semidefinite.
        """

    def kept(self) -> AbstractContextManager[Products]:
        """Provide products at the present weights, at about 2 gradients each with a kept graph."""


class Weights(Protocol):
    """Model whose weights can be exchanged."""

    def here(self) -> dict[str, Tensor]:
        """Return the present weights of the parameters that train; read-only."""

    def move_to(self, weights: Vector) -> None:
        """Replace the weights by the given tensors, without a copy."""
