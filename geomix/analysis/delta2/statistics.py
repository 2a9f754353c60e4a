"""Statistics of a comparison, by name, level and unit, and the reading of their signs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from geomix.analysis.delta2.arms import Pair
from geomix.analysis.delta2.compare import Assumptions, Comparison, Inside
from geomix.analysis.delta2.result import Delta2, whole
from geomix.measures.delta import degeneracy, drift, norm_angle_split
from geomix.measures.intervals import over_seeds
from geomix.measures.linear_model import Coefficients, linear_terms
from geomix.measures.reach import GRID

Level = Literal["headline", "local", "assumptions"]

NATS = "nats"
PRODUCT = "nats² per weight²"
GRADIENT = "nats per weight"

Value = Callable[[Comparison], float]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number of a comparison.

    Attributes:
        key: its name in tables.
        unit: `nats`, `1` for shares and cosines.
        value: its value for one seed; nan if it is unknown.
        gate: test that may prevent reading its sign: `sign`, `third`, `norm`, `angle`, or none;
            `length` if it has no sign.
    """

    key: str
    unit: str
    value: Value
    gate: str = ""


def _inside(read: Callable[[Inside], float]) -> Value:
    def value(c: Comparison) -> float:
        return math.nan if c.linear is None or c.linear.inside is None else read(c.linear.inside)

    return value


def _assumed(read: Callable[[Assumptions], float]) -> Value:
    return lambda c: math.nan if c.assumptions is None else read(c.assumptions)


def _coefficient(form: str, read: Callable[[Coefficients], float]) -> Value:
    def value(assumptions: Assumptions) -> float:
        found: Coefficients | None = getattr(assumptions, form)
        return math.nan if found is None else read(found)

    return _assumed(value)


def _at_one(term: str) -> Value:
    def value(c: Comparison) -> float:
        return (
            math.nan if c.linear is None else float(getattr(linear_terms(c.linear.products), term))
        )

    return value


def _reach(which: str) -> Value:
    return lambda c: math.nan if c.linear is None else float(getattr(c.linear, which).t)


def _about_delta(statistic: Statistic) -> Statistic:
    """Make a number unknown for arms with the same θ_A: δ = 0 says nothing of them."""

    def value(c: Comparison) -> float:
        return statistic.value(c) if c.length else math.nan

    return replace(statistic, value=value)


def _product(i: int, j: int) -> Value:
    """Return the cosine between two of the six vectors; nan without the products."""

    def value(c: Comparison) -> float:
        if c.inner.shape[-1] <= max(i, j):
            return math.nan
        g = c.inner.sum(axis=0)
        lengths = math.sqrt(g[i, i] * g[j, j])
        return float(g[i, j] / lengths) if lengths else math.nan

    return value


def _error(x: int, other: int, product: int) -> Value:
    """Return ‖s_X − H_X δ‖ / ‖s_X‖ at the whole δ."""
    return lambda c: linear_error(c.inner.sum(axis=0), x, other, product)[0]


def linear_error(g: Any, x: int, other: int, product: int) -> tuple[float, float, float, float]:
    """Return ‖s − Hδ‖/‖s‖ with ‖s‖, ‖Hδ‖ and cos(s, Hδ); nan without products.

    Args:
        g: inner products `(6, 6)`, or `(4, 4)` without the products.
        x: index of the reference's gradient.
        other: index of the other arm's.
        product: index of the Hessian-vector product.
    """
    if len(g) <= product:
        return math.nan, math.nan, math.nan, math.nan
    square = max(float(g[x, x] + g[other, other] - 2 * g[x, other]), 0.0)
    along = float(g[other, product] - g[x, product])
    size = float(g[product, product])
    moved, length = math.sqrt(square), math.sqrt(size)
    rest = math.sqrt(max(square + size - 2 * along, 0.0))
    cos = along / (moved * length) if moved * length else math.nan
    return (rest / moved if moved else math.nan), moved, length, cos


HEADLINE = (
    Statistic("Δ", NATS, lambda c: c.parts.total),
    Statistic("Δ₁", NATS, lambda c: c.parts.first),
    Statistic("Δ₂", NATS, lambda c: c.parts.second),
    Statistic("Δ₃", NATS, lambda c: c.parts.third),
)

LOCAL = (
    Statistic("Δ₂/η exact", PRODUCT, lambda c: float(c.exact.total), "sign"),
    Statistic("g_B·s_A", PRODUCT, lambda c: float(c.exact.gb_sa)),
    Statistic("g_A·s_B", PRODUCT, lambda c: float(c.exact.ga_sb)),
    Statistic("s_A·s_B", PRODUCT, lambda c: float(c.exact.sa_sb), "third"),
    Statistic("g_B·g_A", PRODUCT, lambda c: degeneracy(whole(c)).gb_ga),
    Statistic("g_B·g'_A", PRODUCT, lambda c: degeneracy(whole(c)).gb_ga2),
    Statistic("g'_A·s_B", PRODUCT, lambda c: degeneracy(whole(c)).ga2_sb),
    Statistic("ρ = ‖g'_A‖/‖s_A‖", "1", lambda c: degeneracy(whole(c)).rho, "length"),
    Statistic("norm part", PRODUCT, lambda c: float(norm_angle_split(whole(c)).norm), "norm"),
    Statistic(
        "norm part, smaller", PRODUCT, lambda c: float(norm_angle_split(whole(c)).norm_range[0])
    ),
    Statistic(
        "norm part, larger", PRODUCT, lambda c: float(norm_angle_split(whole(c)).norm_range[1])
    ),
    Statistic("angle part", PRODUCT, lambda c: float(norm_angle_split(whole(c)).angle), "angle"),
    Statistic(
        "angle part, smaller", PRODUCT, lambda c: float(norm_angle_split(whole(c)).angle_range[0])
    ),
    Statistic(
        "angle part, larger", PRODUCT, lambda c: float(norm_angle_split(whole(c)).angle_range[1])
    ),
    Statistic("cos(g_B, g_A)", "1", lambda c: float(norm_angle_split(whole(c)).cosine)),
    Statistic("cos(g'_B, g'_A)", "1", lambda c: float(norm_angle_split(whole(c)).other_cosine)),
    Statistic("‖g_A‖", GRADIENT, lambda c: float(drift(whole(c))[0].norm), "length"),
    Statistic("‖g'_A‖", GRADIENT, lambda c: float(drift(whole(c))[0].other_norm), "length"),
    Statistic("‖s_A‖", GRADIENT, lambda c: float(drift(whole(c))[0].moved), "length"),
    Statistic("‖g_B‖", GRADIENT, lambda c: float(drift(whole(c))[1].norm), "length"),
    Statistic("‖g'_B‖", GRADIENT, lambda c: float(drift(whole(c))[1].other_norm), "length"),
    Statistic("‖s_B‖", GRADIENT, lambda c: float(drift(whole(c))[1].moved), "length"),
    Statistic("‖δ‖", "weights", lambda c: c.length, "length"),
    Statistic("reach of g_A's linear model", "δ", _reach("reach_a"), "length"),
    Statistic("reach of g_B's linear model", "δ", _reach("reach_b"), "length"),
    Statistic("t inside both reaches", "δ", _inside(lambda i: i.t), "length"),
    Statistic("Δ₂/η exact at t", PRODUCT, _inside(lambda i: float(i.exact.total))),
    Statistic("Δ₂/η linear at t", PRODUCT, _inside(lambda i: i.linear.total)),
    Statistic("g_B·s_A linear at t", PRODUCT, _inside(lambda i: i.linear.gb_sa)),
    Statistic("g_A·s_B linear at t", PRODUCT, _inside(lambda i: i.linear.ga_sb)),
    Statistic("s_A·s_B linear at t", PRODUCT, _inside(lambda i: i.linear.sa_sb)),
    Statistic("κ_A = δᵀH_Aδ/‖δ‖²", "nats per weight²", lambda c: c.curvature[0]),
    Statistic("κ_B = δᵀH_Bδ/‖δ‖²", "nats per weight²", lambda c: c.curvature[1]),
    Statistic("cos(H_Aδ, H_Bδ)", "1", _product(4, 5)),
    Statistic("‖s_A − H_Aδ‖/‖s_A‖", "1", _error(0, 2, 4), "length"),
    Statistic("‖s_B − H_Bδ‖/‖s_B‖", "1", _error(1, 3, 5), "length"),
)

ASSUMPTIONS = (
    Statistic("‖g_M(θ_0)‖", GRADIENT, _assumed(lambda a: a.norm_m), "length"),
    Statistic("‖g_A(θ_0)‖", GRADIENT, _assumed(lambda a: a.norm_a), "length"),
    Statistic("cos(δ, −g_M(θ_0))", "1", _assumed(lambda a: a.cos_m)),
    Statistic("cos(δ, −(g_M − g_A)(θ_0))", "1", _assumed(lambda a: a.cos_difference)),
    Statistic("cos(θ_A − θ_0, −g_A(θ_0))", "1", _assumed(lambda a: a.descends)),
    Statistic("w_M", "1", _assumed(lambda a: a.weight), "length"),
    Statistic("one step's forgetting, η¹", PRODUCT, _coefficient("printed", lambda c: c.eta)),
    *(
        Statistic(f"Δ₂ {form}, {power}", unit, _coefficient(form, read))
        for form in ("printed", "weighted")
        for power, unit, read in (
            ("η²: −g_B·H_A x", "nats³ per weight⁴", lambda c: c.eta2_b),
            ("η²: −g_A·H_B x", "nats³ per weight⁴", lambda c: c.eta2_a),
            ("η³: H_B x·H_A x", "nats⁴ per weight⁶", lambda c: c.eta3),
        )
    ),
    Statistic("linear at t = 1: Δ₂/η", PRODUCT, _at_one("total")),
    Statistic("linear at t = 1: g_B·H_Aδ", PRODUCT, _at_one("gb_sa")),
    Statistic("linear at t = 1: g_A·H_Bδ", PRODUCT, _at_one("ga_sb")),
    Statistic("linear at t = 1: H_Aδ·H_Bδ", PRODUCT, _at_one("sa_sb")),
)

LEVELS: Mapping[Level, Sequence[Statistic]] = {
    "headline": HEADLINE,
    "local": tuple(_about_delta(statistic) for statistic in LOCAL),
    "assumptions": ASSUMPTIONS,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number over seeds.

    Attributes:
        pair: the arms.
        key: the statistic's key.
        unit: its unit.
        mean: mean over the seeds for which it is known.
        low: lower end of Student's 95 % interval over seeds; nan for one seed.
        high: upper end.
        n: number of seeds.
        floor: its largest absolute value between two trainings of one of the arms on the same
            examples in another order; nan without such runs.
        sign: `+`, `−`, or the reason why none is read; "" for a length.
    """

    pair: Pair
    key: str
    unit: str
    mean: float
    low: float
    high: float
    n: int
    floor: float
    sign: str


def estimates(result: Delta2, level: Level) -> Iterator[Estimate]:
    """Yield all numbers of a level, without those that are unknown."""
    for pair, by_seed in result.comparisons.items():
        for statistic in LEVELS[level]:
            found = estimate(result, pair, statistic, list(by_seed.values()))
            if found is not None:
                yield found


def estimate(
    result: Delta2, pair: Pair, statistic: Statistic, comparisons: Sequence[Comparison]
) -> Estimate | None:
    """Return one number over seeds; None if no seed has it."""
    known = [v for c in comparisons if not math.isnan(v := statistic.value(c))]
    if not known:
        return None
    mean, half = over_seeds(known)
    sizes = [abs(statistic.value(c)) for c in result.floor_of(pair)]
    floor = max((size for size in sizes if not math.isnan(size)), default=math.nan)
    length = statistic.gate == "length"
    sign = "" if length else _gated(statistic.gate, comparisons) or _sign(mean, half, floor)
    low, high = mean - half, mean + half
    return Estimate(pair, statistic.key, statistic.unit, mean, low, high, len(known), floor, sign)


def _gated(gate: str, comparisons: Sequence[Comparison]) -> str:
    """Return the reason why no sign is read, whatever the interval; "" if there is none."""
    if gate in ("sign", "third"):
        found = [getattr(degeneracy(whole(c)), gate) for c in comparisons]
        return "none: degenerate" if any(found) else ""
    if gate in ("norm", "angle"):
        ranges = [getattr(norm_angle_split(whole(c)), f"{gate}_range") for c in comparisons]
        return "none: its range contains 0" if any(r[0] <= 0 <= r[1] for r in ranges) else ""
    return ""


def _sign(mean: float, half: float, floor: float) -> str:
    if abs(mean) <= floor:
        return "none: inside the floor"
    if math.isnan(half):
        return "none: one seed"
    if abs(mean) <= half:
        return "none: interval contains 0"
    return "+" if mean > 0 else "−"


_REACH = "reach of "


def shown(one: Estimate) -> str:
    """Format the mean with half of the interval, for a table."""
    if one.key.startswith(_REACH) and not one.mean:
        return f"< {GRID[0]:g}"
    half = one.high - one.mean
    text = f"{one.mean:+.3g}" if one.sign else f"{one.mean:.3g}"
    return (text + ("" if math.isnan(half) else f" ± {half:.2g}")).replace("-", "−")
