"""Curvature at one checkpoint of one arm: spectra, and κ along a displacement and its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geomix.analysis.curvature import Asked
from geomix.analysis.curvature.operators import Operator, SetHessian
from geomix.analysis.curvature.result import WHOLE, Along, Bin, Curvature, Place, Spectrum
from geomix.analysis.layout import groups_of
from geomix.experiments.precise import PreciseArm
from geomix.gradients.vectors import Vector, dot, norm, restricted
from geomix.measures.definiteness import semidefinite
from geomix.measures.intervals import t_interval
from geomix.measures.lanczos import TOLERANCE, extremes, quadrature, random_start
from geomix.measures.trace import hutch_plus_plus
from geomix.util.progress import phase

MOST = 40
"""Products for the ends of a spectrum; 15 to 25 were enough on small models."""

DRAWS = 3
"""Permutations of a displacement."""

STARTS, STEPS = 10, 30
"""Random vectors of a density, and products for each."""

EDGES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, TOLERANCE)
"""Ends of a density's bins, as shares of the largest absolute value, on both sides of 0."""


@dataclass(frozen=True)
class CheckpointCurvature:
    """Measurement at one checkpoint of one arm."""

    place: Place
    arm: PreciseArm
    asked: Asked
    hessians: Sequence[SetHessian]
    result: Curvature

    def measure(self, displacement: tuple[str, dict[str, Tensor]] | None) -> None:
        """Measure every matrix and block: spectra, and curvature along the displacement."""
        here = self.arm.here()
        draws = [_permuted(displacement[1], draw) for draw in range(DRAWS)] if displacement else []
        if displacement is not None:
            for hessian in self.hessians:
                along(self.place, hessian, displacement[0], displacement[1], self.result)
                self._nulls(hessian, displacement[0], draws)
        blocks = {WHOLE: list(here)}
        if self.asked.by == "layer":
            groups = groups_of(self.arm.loaded.model, self.arm.parameters, "layer")
            blocks = {
                g: [n for n in here if groups[n] == g] for g in dict.fromkeys(groups.values())
            }
        made = [(_symbol(h.name), (h,)) for h in self.hessians]
        for block, names in blocks.items():
            like = restricted(here, names)
            for symbol, hessian_ in made:
                self._spectrum(Operator(symbol, hessian_, like), block, displacement, draws)
            if self.asked.symmetrised:
                one, two = self.hessians[:2]
                a, b = _symbol(one.name), _symbol(two.name)
                operator = Operator(f"½({a} {b} + {b} {a})", (one, two), like)
                self._spectrum(operator, block, displacement, draws)

    def _nulls(self, hessian: SetHessian, displacement: str, draws: Sequence[Vector]) -> None:
        values = [_kappa(d, hessian(d)) for d in draws]
        spread = float(np.std(values, ddof=1))
        name, length = f"{displacement}, permuted", norm(draws[0])
        mean = float(np.mean(values))
        found = Along(self.place, hessian.name, name, length, mean, spread=spread)
        self.result.along.append(found)

    def _spectrum(
        self,
        operator: Operator,
        block: str,
        displacement: tuple[str, Vector] | None,
        draws: Sequence[Vector],
    ) -> None:
        before = sum(h.products for h in operator.hessians)
        most = max(3, (self.asked.products or MOST * operator.each) // operator.each)
        with phase(f"{operator.symbol} at {self.place.checkpoint}, {block}"):
            found = extremes(operator, random_start(operator.size), most=most)
        products = sum(h.products for h in operator.hessians) - before
        low, high, rounding = found.bottom, found.top, operator.rounding(found.bottom.vector)
        bounds = {"residual": low.residual, "rounding": rounding}
        along, permuted = self._kappas(operator, block, displacement, draws)
        trace, half = np.nan, np.nan
        if self.asked.trace:
            estimate = hutch_plus_plus(operator, operator.size)
            trace, half = estimate.estimate, estimate.half_width
        alone = len(operator.hessians) == 1
        spectrum = Spectrum(
            self.place,
            operator.symbol,
            block,
            operator.size,
            ", ".join(dict.fromkeys(h.facts for h in operator.hessians)),
            operator.hessians[0].loss if alone else np.nan,
            low.values,
            high.values,
            (low.residual, high.residual),
            rounding,
            along,
            permuted,
            products,
            "full" if found.full else "converged" if found.converged else "not converged",
            semidefinite(low.value, high.value, **bounds, full=found.full),
            trace,
            half,
        )
        self.result.spectra.append(spectrum)
        if self.asked.density and block == WHOLE:
            self._density(operator, found.scale)

    def _kappas(
        self,
        operator: Operator,
        block: str,
        displacement: tuple[str, Vector] | None,
        draws: Sequence[Vector],
    ) -> tuple[float, float]:
        """Return κ along the displacement within a block, and the mean of its permutations."""
        if displacement is None:
            return np.nan, np.nan
        if block == WHOLE and len(operator.hessians) == 1:  # measured already
            name = operator.hessians[0].name
            mine = [a for a in self.result.along if (a.place, a.name) == (self.place, name)]
            named = {a.displacement: a.hessian for a in mine}
            return named[displacement[0]], named[f"{displacement[0]}, permuted"]
        parts = [restricted(d, operator.like) for d in (displacement[1], *draws)]
        values = [_kappa(d, operator.image(d)) if norm(d) else np.nan for d in parts]
        return values[0], float(np.mean(values[1:]))

    def _density(self, operator: Operator, scale: float) -> None:
        steps = steps_of(self.asked)
        with phase(f"density of {operator.symbol} at {self.place.checkpoint}"):
            found = quadrature(operator, operator.size, starts=STARTS, steps=steps)
        inner = [e * scale for e in EDGES[1:]]
        edges = [-np.inf, *(-e for e in inner), *inner[::-1], np.inf]
        for low, high in pairwise(edges):
            shares = [float(share) for share in found.share(low, high)]
            ends = max(low, -scale), min(high, scale)
            mean, half = t_interval(shares)
            one = Bin(self.place, operator.symbol, *ends, mean, half, STARTS)
            self.result.bins.append(one)


def along(
    place: Place, hessian: SetHessian, name: str, d: Vector, result: Curvature
) -> dict[str, Tensor]:
    """Measure κ along a displacement; return the Hessian's image of it."""
    image = hessian(d)
    outer = np.nan
    if hessian.gauss_newton is not None:
        outer = _kappa(d, hessian.gauss_newton(d))
        hessian.products += 1
    kappas = (_kappa(d, image), outer)
    found = Along(place, hessian.name, name, norm(d), *kappas, disagreement=hessian.disagreement)
    result.along.append(found)
    return image


def _kappa(d: Vector, image: Vector) -> float:
    square = dot(d, d)
    return dot(d, image) / square if square else np.nan


def _permuted(v: Vector, draw: int) -> dict[str, Tensor]:
    """Permute the values within each tensor: the same length, no direction."""
    generator = torch.Generator().manual_seed(draw)
    found = {}
    for name, tensor in v.items():
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        found[name] = tensor.reshape(-1)[order].reshape(tensor.shape)
    return found


def _symbol(name: str) -> str:
    """Return the symbol: `H_A` for `D_A`; another set's name is in parentheses."""
    return f"H_{name[2:]}" if name.startswith("D_") else f"H({name})"


def steps_of(asked: Asked) -> int:
    """Return the number of products for each start of a density."""
    return STEPS if asked.products is None else max(3, min(STEPS, asked.products // STARTS))
