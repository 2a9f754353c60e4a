"""Laws of retention: power, exponential and logarithmic decay of curves (pure maths).

Retention R(t) is the share of what a stage taught that is left at time t > 0 after the stage:
R(t) = (s(t) − s(0)) / (s(θ_A) − s(0)), with s the mean log-probability of the set's answers, s(0)
at the base model, s(θ_A) at the end of the set's own stage. R = 1 there, and so in every law:

    power          R = c + (1 − c)·(1 + t/τ)^−α
    exponential    R = c + (1 − c)·e^(−t/τ)
    logarithm      R = 1 − k·ln(1 + t/τ)

The first two have variants without a floor, c = 0. The logarithm has none: c would only rescale k.
A floor is a share that stays, 0 ≤ c < 1: a power law of any c < 0 would be a logarithm by another
name. All are R − 1 = β·φ(t; τ, α). Source of R: Chang et al. 2024 (2406.11813); its peak is a
maximum over noisy values, which makes forgetting look faster, so R here has a fixed one.

Shapes: n points in time, B curves, p parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Family = Literal["power", "exponential", "logarithm"]

LEAST_POINTS = 6
"""Fewest points that a law is fitted to."""

LEAST_SPAN = 10.0
"""Least ratio of the last to the first point in time."""

_ALPHA = (0.05, 20.0)
"""Exponents that are looked at: beyond them a power law is a logarithm or an exponential."""

_STEPS = 100
_CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class Law:
    """Law of retention.

    Attributes:
        family: its kind.
        floor: whether something stays for ever.
    """

    family: Family
    floor: bool = False

    @property
    def name(self) -> str:
        """Name as tables have it: `power with floor`."""
        return self.family + (" with floor" if self.floor else "")

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return 1 + (self.family != "exponential") + self.floor

    @property
    def scaled(self) -> bool:
        """True if β is free: 1 − c with a floor, k of the logarithm."""
        return self.floor or self.family == "logarithm"

    def shape(self, t: Floats, tau: Floats, alpha: Floats) -> Floats:
        """Return φ, `(B, n)`, at points `(n,)` for scales and exponents `(B,)`."""
        u = t / tau[:, None]
        if self.family == "exponential":
            return np.expm1(-u)
        decay = np.log1p(u)
        return -decay if self.family == "logarithm" else np.expm1(-alpha[:, None] * decay)

    def slopes(self, t: Floats, tau: Floats, alpha: Floats) -> list[Floats]:
        """Return the derivatives of φ by ln τ and, for a power, by ln α: `(B, n)` each."""
        u = t / tau[:, None]
        if self.family == "exponential":
            return [u * np.exp(-u)]
        if self.family == "logarithm":
            return [u / (1 + u)]
        a, decay = alpha[:, None], np.log1p(u)
        left = np.exp(-a * decay)
        return [a * u / (1 + u) * left, -a * decay * left]


LAWS = (
    Law("power"),
    Law("power", floor=True),
    Law("exponential"),
    Law("exponential", floor=True),
    Law("logarithm"),
)
"""Candidates, in the order in which tables list them."""


@dataclass(frozen=True, slots=True)
class Fits:
    """Least-squares fits of one law to B curves.

    Attributes:
        law: the law.
        tau: τ in the unit of time, `(B,)`.
        alpha: α, `(B,)`; 1 where the law has none.
        beta: β, `(B,)`: 1 − c or k; 1 where it is fixed.
        errors: weighted sums of squared errors, `(B,)`; weights have mean 1.
        inside: whether τ lies within the data, the curve falls, and its floor is 0 or more, `(B,)`.
        points: n.
    """

    law: Law
    tau: Floats
    alpha: Floats
    beta: Floats
    errors: Floats
    inside: NDArray[np.bool_]
    points: int

    def aicc(self) -> Floats:
        """Return Akaike's criterion with its correction for small samples, `(B,)`.

        n·ln(SSE/n) + 2K + 2K(K+1)/(n−K−1), K = p + 1 with the variance (Hurvich & Tsai 1989).
        """
        k, n = self.law.parameters + 1, self.points
        error = np.maximum(self.errors / n, 1e-24)
        return n * np.log(error) + 2 * k + 2 * k * (k + 1) / (n - k - 1)

    def curves(self, t: Floats) -> Floats:
        """Return the fitted R at any points in time, `(B, n)`."""
        return 1 + self.beta[:, None] * self.law.shape(t, self.tau, self.alpha)


def lacking(t: Floats) -> str:
    """Return why no law is fitted to points at these times; empty if one is.

    Args:
        t: times after the stage, above 0, ascending, `(n,)`.
    """
    if len(t) < LEAST_POINTS:
        there = "1 evaluation" if len(t) == 1 else f"{len(t)} evaluations"
        return f"{there} of the {LEAST_POINTS} that a law needs"
    if t[-1] < LEAST_SPAN * t[0]:
        return f"evaluations span a factor of {t[-1] / t[0]:.2g} in time; a law needs 10"
    return ""


def fit(law: Law, t: Floats, retention: Floats, weights: Floats | None = None) -> Fits:
    """Fit a law to each curve by weighted least squares.

    A grid over τ and α, then Levenberg–Marquardt steps for all curves at once. τ stays within the
    data, α within 0.05 to 20: a curve whose best τ lies beyond is not `inside`.

    Args:
        law: the law.
        t: times after the stage, above 0, ascending, `(n,)`.
        retention: R, `(B, n)`.
        weights: of the points, `(n,)`; None is equal ones.

    Raises:
        ValueError: `lacking` has a reason.
    """
    if why := lacking(t):
        raise ValueError(why)
    weight = np.ones(len(t)) if weights is None else weights * len(t) / weights.sum()
    fallen = np.asarray(retention, dtype=np.float64) - 1
    state = _begin(law, t, fallen, weight)
    bounds = np.log([[t[0], t[-1]], _ALPHA])
    for _ in range(_STEPS):
        if not state.step(bounds):
            break
    tau, alpha, beta = state.values()
    low, high = bounds[0]
    free = (state.x[:, 0] > low + _CLOSE) & (state.x[:, 0] < high - _CLOSE)
    most = 1.0 if law.floor else np.inf
    inside = free & (beta > 0) & (beta <= most)
    return Fits(law, tau, alpha, beta, state.errors, inside, len(t))


@dataclass(slots=True)
class _State:
    """Levenberg–Marquardt iteration: x is `(B, 3)`, ln τ, ln α and β."""

    law: Law
    t: Floats
    fallen: Floats
    weight: Floats
    x: Floats
    damping: Floats
    errors: Floats
    active: NDArray[np.bool_]

    def values(self) -> tuple[Floats, Floats, Floats]:
        return np.exp(self.x[:, 0]), np.exp(self.x[:, 1]), self.x[:, 2]

    def step(self, bounds: Floats) -> bool:
        """Take one step for the curves that have not converged; return whether any is left."""
        which = np.flatnonzero(self.active)
        x, fallen, damping = self.x[which], self.fallen[which], self.damping[which]
        tau, alpha, beta = np.exp(x[:, 0]), np.exp(x[:, 1]), x[:, 2:]
        shape = self.law.shape(self.t, tau, alpha)
        slopes = [beta * slope for slope in self.law.slopes(self.t, tau, alpha)]
        columns = [0, 1][: len(slopes)] + [2] * self.law.scaled
        jacobian = np.stack([*slopes, *[shape] * self.law.scaled], axis=1)
        weighted = jacobian * self.weight
        normal = weighted @ jacobian.transpose(0, 2, 1)
        gradient = np.einsum("bpn,bn->bp", weighted, fallen - beta * shape)
        diagonal = np.einsum("bpp->bp", normal)
        damped = normal + np.eye(len(columns)) * (damping[:, None] * diagonal + 1e-12)[:, None, :]
        move = np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial = x.copy()
        trial[:, columns] += np.clip(move, -1, 1)
        trial[:, :2] = np.clip(trial[:, :2], bounds[:, 0], bounds[:, 1])
        errors = _errors(self.law, self.t, fallen, self.weight, trial)
        before = self.errors[which]
        better = errors <= before
        self.x[which[better]] = trial[better]
        self.errors[which[better]] = errors[better]
        self.damping[which] = np.where(better, damping / 5, damping * 4)
        moved = np.abs(trial - x).max(axis=1)
        settled = (moved < 1e-6) | (self.damping[which] > 1e8)  # noqa: PLR2004
        self.active[which[settled]] = False
        return bool(self.active.any())


def _errors(law: Law, t: Floats, fallen: Floats, weight: Floats, x: Floats) -> Floats:
    shape = law.shape(t, np.exp(x[:, 0]), np.exp(x[:, 1]))
    return ((fallen - x[:, 2:] * shape) ** 2) @ weight


def _begin(law: Law, t: Floats, fallen: Floats, weight: Floats) -> _State:
    """Return the best points of a grid over τ and α, with the best β of each."""
    taus = np.geomspace(t[0], t[-1], 40)
    alphas = np.geomspace(*_ALPHA, 30) if law.family == "power" else np.ones(1)
    tau, alpha = (grid.ravel() for grid in np.meshgrid(taus, alphas, indexing="ij"))
    shape = law.shape(t, tau, alpha)
    product = (fallen * weight) @ shape.T
    size = (shape**2) @ weight
    gain = np.maximum(product, 0) ** 2 / size if law.scaled else 2 * product - size
    best = gain.argmax(axis=1)
    beta = np.ones(len(fallen))
    if law.scaled:
        beta = np.maximum(product[np.arange(len(fallen)), best] / size[best], 0)
    x = np.stack([np.log(tau[best]), np.log(alpha[best]), beta], axis=1)
    errors = _errors(law, t, fallen, weight, x)
    count = len(fallen)
    return _State(
        law, t, fallen, weight, x, np.full(count, 1e-2), errors, np.ones(count, dtype=np.bool_)
    )
