"""Measurements of `geomix analyze curvature` and their tidy tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from geomix.measures.verdict import Verdict

WHOLE = "all"
"""Name of the block of all parameters."""


@dataclass(frozen=True, slots=True)
class Place:
    """Location of a measurement.

    Attributes:
        arm: label of the arm's configuration.
        seed: the run's seed.
        checkpoint: `θ_A`.
    """

    arm: str
    seed: int
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Both ends of a matrix's spectrum, in nats over the square of the weights' unit.

    Attributes:
        place: arm, seed and checkpoint.
        matrix: `H_A`, or `½(H_A H_B + H_B H_A)`.
        block: of the parameters; `WHOLE` for all.
        parameters: rows of the matrix.
        facts: text with the number of facts in the loss, and their total.
        loss: of the set there, in nats; nan for a product of matrices.
        bottom: smallest Ritz values.
        top: largest ones.
        residuals: of the extreme ones, bottom and top; an eigenvalue lies within.
        rounding: norm of the difference between two products of the bottom vector, the examples in
            other batches.
        along: κ, the curvature along the displacement (`Along.displacement`) within the block.
        permuted: the mean κ of displacements with their values permuted within each tensor.
        products: with Hessians that the ends took.
        state: `converged`, `not converged`, or `full` for a full decomposition.
        verdict: whether the matrix is positive semidefinite.
        trace: an estimate; nan unless asked for.
        trace_half_width: of its 95 % interval over 10 starts.
    """

    place: Place
    matrix: str
    block: str
    parameters: int
    facts: str
    loss: float
    bottom: tuple[float, ...]
    top: tuple[float, ...]
    residuals: tuple[float, float]
    rounding: float
    along: float
    permuted: float
    products: int
    state: str
    verdict: Verdict
    trace: float = math.nan
    trace_half_width: float = math.nan

    def row(self) -> dict[str, Any]:
        """Return a row of the main table; further Ritz values have columns of their own."""
        found = {**asdict(self.place), "matrix": self.matrix, "block": self.block}
        found |= {"parameters": self.parameters, "facts": self.facts, "loss": self.loss}
        found |= {"smallest": self.bottom[0], "largest": self.top[0]}
        found |= {"smallest_residual": self.residuals[0], "largest_residual": self.residuals[1]}
        found |= {"rounding": self.rounding, "along": self.along, "along_permuted": self.permuted}
        for rank in (2, 3):
            for name, values in (("smallest", self.bottom), ("largest", self.top)):
                found[f"{name}_{rank}"] = values[rank - 1] if rank <= len(values) else math.nan
        found |= {"products": self.products, "state": self.state, "semidefinite": self.verdict}
        return {**found, "trace": self.trace, "trace_half_width": self.trace_half_width}


@dataclass(frozen=True, slots=True)
class Along:
    """The curvature of a set's loss along a displacement d: κ = dᵀHd / ‖d‖².

    Attributes:
        place: arm, seed and checkpoint.
        name: of the set.
        displacement: `θ_B − θ_A`, the same `permuted`, or `θ_A(mixed) − θ_A`.
        length: ‖d‖.
        hessian: κ.
        gauss_newton: the same of the Gauss–Newton matrix; nan where that was not computed.
        spread: standard deviation of κ over the draws of a permuted displacement; nan elsewhere.
        disagreement: of two step lengths, where products are differences of gradients.
    """

    place: Place
    name: str
    displacement: str
    length: float
    hessian: float
    gauss_newton: float = math.nan
    spread: float = math.nan
    disagreement: float = math.nan

    def row(self) -> dict[str, Any]:
        """Return a row of the table of displacements."""
        found = asdict(self)
        return {**found.pop("place"), "set": found.pop("name"), **found}


@dataclass(frozen=True, slots=True)
class Turned:
    """Two Hessians' images of δ = θ_A(another arm) − θ_A, on which the paper's third term rests.

    Attributes:
        place: the first arm, its seed and the checkpoint.
        other: label of the other arm.
        cosine: cos(H_B δ, H_A δ).
        first: ‖H_A δ‖.
        second: ‖H_B δ‖.
        length: ‖δ‖.
    """

    place: Place
    other: str
    cosine: float
    first: float
    second: float
    length: float

    def row(self) -> dict[str, Any]:
        """Return a row of the table of images."""
        found = asdict(self)
        return {**found.pop("place"), **found}


@dataclass(frozen=True, slots=True)
class Bin:
    """The share of a matrix's eigenvalues in an interval.

    Attributes:
        place: arm, seed and checkpoint. matrix: symbol of the matrix.
        low: of the interval.
        high: of the interval.
        share: mean over starts.
        half_width: of its 95 % interval over the starts.
        starts: how many.
    """

    place: Place
    matrix: str
    low: float
    high: float
    share: float
    half_width: float
    starts: int

    def row(self) -> dict[str, Any]:
        """Return a row of the table of densities."""
        found = asdict(self)
        return {**found.pop("place"), **found}


_PARTS: dict[str, type[Any]] = {"spectra": Spectrum, "along": Along, "turned": Turned, "bins": Bin}


@dataclass(slots=True)
class Curvature:
    """All measurements of an analysis.

    Attributes:
        spectra: arm by arm, checkpoint by checkpoint.
        along: curvature along displacements.
        turned: images of displacements between arms.
        bins: bins of densities.
        budget: measured cost of the products; "" if none had to be computed.
    """

    spectra: list[Spectrum] = field(default_factory=list)
    along: list[Along] = field(default_factory=list)
    turned: list[Turned] = field(default_factory=list)
    bins: list[Bin] = field(default_factory=list)
    budget: str = ""

    def extend(self, other: Curvature) -> None:
        """Append another result's measurements, without its budget."""
        for name in _PARTS:
            getattr(self, name).extend(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Return every measured number, as JSON can hold it."""
        return {name: [asdict(one) for one in getattr(self, name)] for name in _PARTS}

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Curvature:
        """Restore a result from `to_json`."""
        found = cls()
        for name, kind in _PARTS.items():
            for fields in given[name]:
                named = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
                one = kind(**{**named, "place": Place(**fields["place"])})
                getattr(found, name).append(one)
        return found

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return tidy tables by the suffix of their files' names, without those that are empty."""
        parts: dict[str, Sequence[Any]] = {
            "": self.spectra,
            "displacements": self.along,
            "between_arms": self.turned,
            "density": self.bins,
        }
        return {k: [one.row() for one in part] for k, part in parts.items() if part or not k}
