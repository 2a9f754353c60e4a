"""Verdicts on Δ and its parts, and notes to each level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from geomix.analysis.delta2.compare import Comparison
from geomix.analysis.delta2.result import Delta2, whole
from geomix.analysis.delta2.statistics import HEADLINE, Estimate, estimate
from geomix.analysis.findings import Finding
from geomix.config.names import HELD_OUT, MIXED
from geomix.measures.delta import degeneracy
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule, Verdict

_PARTS = {
    "Δ": "forgets less of D_A",
    "Δ₁": "had learned D_A better when stage 1 ended",
    "Δ₂": "forgets less to first order at θ_A",
    "Δ₃": "forgets less beyond the first order at θ_A",
}


def headline(result: Delta2) -> list[list[Estimate]]:
    """Return Δ and its parts for each comparison with a seed, in order."""
    found = []
    for pair, by_seed in result.comparisons.items():
        values = list(by_seed.values())
        row = [estimate(result, pair, statistic, values) for statistic in HEADLINE]
        if all(row):
            found.append([one for one in row if one is not None])
    return found


def judge(one: Estimate, rule: Rule) -> tuple[Verdict, str]:
    """Return the verdict on an effect in nats, and the reason if there is none."""
    if not one.pair.judged:
        return "undetermined", "not judged: what its control's steps do would count as the mixing's"
    if lacking := rule.lacking(one.n):
        return "undetermined", lacking
    if abs(one.mean) <= one.floor:
        return "undetermined", "another order of the same examples does as much (the floor)"
    return rule.judge(one.low, one.high, one.n), ""


def findings(result: Delta2, rule: Rule) -> Iterator[Finding]:
    """Yield findings on Δ and its parts for every comparison."""
    for row in headline(result):
        for one in row:
            found, why = judge(one, rule)
            sentence = f"Above 0: {one.pair.other} {_PARTS[one.key]} than {one.pair.reference}."
            yield Finding(
                claim=f"{one.pair}: {one.key} > 0",
                estimate=one.mean,
                low=one.low,
                high=one.high,
                unit=one.unit,
                n=one.n,
                verdict=found,
                sentence=sentence + (f" {why[0].upper()}{why[1:]}." if why else ""),
            )


def reach_text(comparisons: Sequence[Comparison]) -> str:
    """Return the linear model's reach along δ: that of the worst seed of either set."""
    reaches = [
        reach
        for one in comparisons
        if one.linear is not None
        for reach in (one.linear.reach_a, one.linear.reach_b)
    ]
    if not reaches or not all(reach.determined for reach in reaches):
        return "undetermined"
    return min(reaches, key=lambda reach: reach.t).text


def local_notes(result: Delta2) -> Iterator[str]:
    """Yield the one-step theory at θ_A for each judged comparison, and its reach."""
    for pair, by_seed in result.comparisons.items():
        found = list(by_seed.values())
        if not pair.judged or not found:
            continue
        if not any(one.length for one in found):
            yield f"{pair}: one θ_A (δ = 0), so the theory of δ says nothing of them."
            continue
        exact, third = (
            float(np.mean([float(getattr(one.exact, term)) for one in found]))
            for term in ("total", "sa_sb")
        )
        gates = [degeneracy(whole(one)) for one in found]
        terms = [
            f"{name} {number(value)}" + " (degenerate)" * any(getattr(gate, key) for gate in gates)
            for name, value, key in (("Δ₂/η", exact, "sign"), ("s_A·s_B", third, "third"))
        ]
        text = f"{pair}: {', '.join(terms)}"
        if any(gate.sign or gate.third for gate in gates):
            text += f": a degenerate sign says how far {pair.reference} was from convergence"
        known = all(one.linear is not None for one in found)
        yield f"{text}. {_reach_note(found)}" if known else f"{text}."


def _reach_note(found: Sequence[Comparison]) -> str:
    """Return the linear model's reach along δ, and both forms of Δ₂/η there."""
    length = float(np.mean([one.length for one in found]))
    text = f"The linear model reaches {reach_text(found)} of δ (‖δ‖ = {length:.3g})"
    inside = [one.linear.inside for one in found if one.linear and one.linear.inside]
    if len(inside) < len(found):
        return f"{text}: no sign is read from it."
    linear = float(np.mean([one.linear.total for one in inside]))
    exact = float(np.mean([float(one.exact.total) for one in inside]))
    return f"{text}, where it gives Δ₂/η {number(linear)} for {number(exact)}."


def later_note(result: Delta2) -> str:
    """Return each arm's loss of D_B: an arm that learned less of it has less reason to forget."""
    named = []
    for label in result.arms.labels:
        mean, half = over_seeds([row.later_end for row in result.rows if row.label == label])
        named.append(f"{label} {mean:.3g}" + ("" if math.isnan(half) else f" ± {half:.2g}"))
    return f"Loss of D_B after stage 2: {', '.join(named)}."


def floor_note(result: Delta2) -> str:
    """Describe the effect of the examples' order alone, or report that no such runs exist."""
    found = [one for by_pair in result.floors.values() for one in by_pair.values()]
    if not found:
        return (
            "Floor: missing. It takes the same arms with another run seed and the sources' own "
            "seeds fixed, given behind this run."
        )
    largest = max(abs(one.parts.total) for one in found)
    lengths = [one.length for one in found]
    few = "" if len(found) >= 6 else "; at least 3 pairs are wanted"  # noqa: PLR2004
    return (
        f"Floor, {len(found) // 2} pair{'s' * (len(found) > 2)} of trainings with another order: "  # noqa: PLR2004
        f"|Δ| up to {largest:.3g} nats, ‖δ‖ up to {max(lengths):.3g}{few}."
    )


def condition_notes(result: Delta2) -> Iterator[str]:
    """Yield the checkpoints of each arm's stage 2 with the condition: D_M, replay and the null."""
    for label, by_seed in result.tested.items():
        for name in dict.fromkeys(one.name for found in by_seed.values() for one in found):
            states: dict[str, list[str]] = {}
            for found in by_seed.values():
                for one in found:
                    if one.name == name:
                        states.setdefault(one.checkpoint, []).append(one.condition.state)
            null = " (the null)" if name == HELD_OUT else ""
            listed = ", ".join(f"{at} {_states(some)}" for at, some in states.items())
            yield f"{label}, {name}{null}: {listed}."
    for label in result.without_path:
        yield f"{label}: θ_A and θ_B alone; weights between need record: {{weights: true}}."


def _states(found: Sequence[str]) -> str:
    """Format states: `true`, or for several seeds `3 true, 2 by size`."""
    if len(found) == 1:
        return found[0]
    counts = {state: found.count(state) for state in ("true", "by size", "false")}
    return " ".join(f"{count} {state}" for state, count in counts.items() if count)


def draws_notes(result: Delta2) -> Iterator[str]:
    """Yield claim (a): the mean of the cross terms over draws, with its references."""
    for seed, found in result.draws.items():
        count = len(found.draws)
        mean, half = over_seeds(found.draws)
        null, null_half = over_seeds(found.shuffled)
        difference = [a - b for a, b in zip(found.draws, found.shuffled, strict=True)]
        rest, rest_half = over_seeds(difference)
        few = "; at least 20 draws are wanted" if count < 20 else ""  # noqa: PLR2004
        yield (
            f"Claim (a), seed {seed}, {count} draws: T = {number(mean)} ± {half:.2g}; with "
            f"shuffled targets, whose prompt is the same, {number(null)} ± {null_half:.2g}; beyond "
            f"that {number(rest)} ± {rest_half:.2g}. A mean loss adds v·g_A(θ_0) = "
            f"{number(found.offset)} to each draw: its cross terms have no mean of 0{few}."
        )


def assumption_notes(result: Delta2) -> Iterator[str]:
    """Yield the assumptions that the rows refute."""
    for pair, by_seed in result.comparisons.items():
        known = [one.assumptions for one in by_seed.values() if one.assumptions is not None]
        if not known or not pair.judged:
            continue
        cos, norm_m, norm_a = (
            float(np.mean([getattr(one, key) for one in known]))
            for key in ("cos_m", "norm_m", "norm_a")
        )
        text = f"{pair}: cos(δ, −g_M(θ_0)) = {number(cos)}"
        floors = [abs(c.assumptions.cos_m) for c in result.floor_of(pair) if c.assumptions]
        text += f" (floor {max(floors):.2g})" if floors else ""
        text += f"; ‖g_M(θ_0)‖ = {norm_m:.3g} beside ‖g_A(θ_0)‖ = {norm_a:.3g}"
        if any(one.known for one in known):
            text += (
                f": the base model knows {MIXED} already, so that the printed step is nothing and "
                "claims (a) and (b) are undetermined"
            )
        yield text + "."
    for row in result.rows:
        if not math.isnan(row.update_share) and row.update_share:
            yield (
                f"{row.label}, seed {row.seed}: {MIXED} made {100 * row.update_share:.0f} % of the "
                "updates of stage 1 (mean of the steps' shares along the whole update)."
            )


def number(value: float) -> str:
    """Format with three digits and a sign."""
    return f"{value:+.3g}".replace("-", "−")
