"""Tables behind the figures: Δ's parts from arm to arm, the condition along the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from geomix.analysis.base import Row
from geomix.analysis.delta2.arms import Arms, Pair
from geomix.analysis.delta2.path import Tested
from geomix.analysis.delta2.result import Delta2
from geomix.analysis.delta2.verdicts import headline
from geomix.analysis.findings import Drawn
from geomix.config.names import set_name
from geomix.measures.intervals import over_seeds


def drawn(result: Delta2, parts: bool) -> Iterator[Drawn]:
    """Draw both figures; with the parts alone only the first, as the main figure."""
    from geomix.figures import delta_parts, stage2_condition

    rows = list(part_rows(result))
    if rows:
        yield Drawn(
            "" if parts else "parts", delta_parts.draw(rows), rows, delta_parts.caption(rows)
        )
    along = list(condition_means(result))
    if along:
        figure = stage2_condition.draw(along)
        yield Drawn("condition", figure, along, stage2_condition.caption(along))


def part_rows(result: Delta2) -> Iterator[Row]:
    """Yield the bars of each chain, such as plain → control → mixed, from loss to loss."""
    found = {row[0].pair: row for row in headline(result)}
    for chain in chains(result.arms, list(found)):
        name = " → ".join([chain[0].reference, *(pair.other for pair in chain)])
        seeds = [set(result.comparisons[pair]) for pair in chain]
        shared = sorted(set.intersection(*seeds))
        if not shared:
            continue
        mean, half = over_seeds([result.row(chain[0].reference, seed).end for seed in shared])
        yield _bar(name, chain[0].reference, "arm", 0.0, mean, half)
        for pair in chain:
            level = mean
            for key in ("first", "second", "third"):
                parts = [getattr(result.comparisons[pair][seed].parts, key) for seed in shared]
                change, half = over_seeds([-part for part in parts])
                symbol = {"first": "Δ₁", "second": "Δ₂", "third": "Δ₃"}[key]
                yield _bar(name, symbol, "part", level, change, half)
                level += change
            mean, half = over_seeds([result.row(pair.other, seed).end for seed in shared])
            yield _bar(name, pair.other, "arm", 0.0, mean, half)


def chains(arms: Arms, known: Iterable[Pair]) -> list[list[Pair]]:
    """Return chains from the reference to each arm, through its control if it has one."""
    judged = [pair for pair in known if pair.judged]
    found: list[list[Pair]] = []
    between = {pair.reference for pair in judged} - {arms.reference}
    for pair in judged:
        if pair.reference != arms.reference:
            first = next((p for p in judged if p.other == pair.reference), None)
            found.append([first, pair] if first else [pair])
        elif pair.other not in between:
            found.append([pair])
    return found


def _bar(chain: str, bar: str, kind: str, base: float, value: float, half: float) -> Row:
    return {
        "chain": chain,
        "bar": bar,
        "kind": kind,
        "base": base,
        "value": value,
        "half_width": half,
    }


def condition_means(result: Delta2) -> Iterator[Row]:
    """Yield means over seeds of each set's product with g_A, in units of ‖g_A‖‖g_B‖.

    Mixed-in sets are weighted by β₂/(1 − β₁), so that the condition holds above the line of D_B.
    """
    own = set_name(1)
    for label, by_seed in result.tested.items():
        groups: dict[tuple[str, str], list[Tested]] = {}
        for found in by_seed.values():
            for one in found:
                groups.setdefault((one.name, one.checkpoint), []).append(one)
        firsts = [key for key in groups if key[0] == next(iter(groups))[0]]
        for _, checkpoint in firsts:
            same = groups[next(iter(groups))[0], checkpoint]
            values = [one.condition.cos_b for one in same]
            yield _point(label, checkpoint, own, values, "threshold")
        for (name, checkpoint), same in groups.items():
            states = Counter(one.condition.state for one in same)
            values = [_scaled(one) for one in same]
            yield _point(label, checkpoint, name, values, states.most_common(1)[0][0])


def _scaled(one: Tested) -> float:
    g = one.gradients
    lengths = g.norm_a * g.norm_b
    share = one.mixed / (1 - one.own) if one.own < 1 else math.nan
    return share * g.gm_ga / lengths if lengths else math.nan


def _point(arm: str, checkpoint: str, name: str, values: list[float], state: str) -> Row:
    mean, half = over_seeds(values)
    where = {"arm": arm, "checkpoint": checkpoint, "set": name}
    return where | {"value": mean, "half_width": half, "state": state}
