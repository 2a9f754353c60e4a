"""The tidy tables: one per level, and those by seed, by group of parameters and along the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from geomix.analysis.base import Row
from geomix.analysis.delta2.compare import Comparison
from geomix.analysis.delta2.result import Delta2
from geomix.analysis.delta2.statistics import LEVELS, Level, estimates, linear_error
from geomix.analysis.parameter_groups import By, grouped
from geomix.measures.delta import Floats, drift, exact_terms, norm_angle_split
from geomix.measures.intervals import over_seeds

WHOLE = "all"
"""Name of the group of all parameters."""


def tables(result: Delta2, by: By) -> Mapping[str, Sequence[Row]]:
    """Return all tables by the suffix of their names; "" is the headline."""
    found: dict[str, list[Row]] = {
        "": list(_level(result, "headline")),
        "local": list(_level(result, "local")),
        "assumptions": list(_level(result, "assumptions")),
        "arms": [asdict(row) for row in result.rows],
        "seeds": list(_seeds(result)),
        f"by_{by}": list(group_rows(result, by)),
        "condition": list(condition_rows(result)),
        "draws": list(_draws(result)),
    }
    return {ending: rows for ending, rows in found.items() if rows}


def _level(result: Delta2, level: Level) -> Iterator[Row]:
    for one in estimates(result, level):
        yield {
            "comparison": str(one.pair),
            "quantity": one.key,
            "unit": one.unit,
            "mean": one.mean,
            "low": one.low,
            "high": one.high,
            "seeds": one.n,
            "floor": one.floor,
            "sign": one.sign,
        }


def _seeds(result: Delta2) -> Iterator[Row]:
    """Yield each number of each seed, and of each pair of trainings for the floor."""
    compared: list[tuple[str, str, Comparison]] = [
        (str(pair), str(seed), one)
        for pair, by_seed in result.comparisons.items()
        for seed, one in by_seed.items()
    ]
    compared += [
        (f"floor of {label}", f"{pair[0]} → {pair[1]}", one)
        for label, by_pair in result.floors.items()
        for pair, one in by_pair.items()
    ]
    for comparison, seed, one in compared:
        for level, statistics in LEVELS.items():
            for statistic in statistics:
                value = statistic.value(one)
                if not np.isnan(value):
                    at = {"comparison": comparison, "seed": seed, "level": level}
                    yield at | {"quantity": statistic.key, "unit": statistic.unit, "value": value}


_GROUP = {
    "Δ₂": "nats",
    "Δ₂/η exact": "nats² per weight²",
    "g_B·s_A": "nats² per weight²",
    "g_A·s_B": "nats² per weight²",
    "s_A·s_B": "nats² per weight²",
    "norm part": "nats² per weight²",
    "angle part": "nats² per weight²",
    "‖s_A‖": "nats per weight",
    "‖s_B‖": "nats per weight",
    "‖H_Aδ‖": "nats per weight",
    "‖H_Bδ‖": "nats per weight",
    "‖s_A − H_Aδ‖/‖s_A‖": "1",
    "‖s_B − H_Bδ‖/‖s_B‖": "1",
    "cos(s_A, H_Aδ)": "1",
    "cos(s_B, H_Bδ)": "1",
}


def group_rows(result: Delta2, by: By) -> Iterator[Row]:
    """Yield numbers by group of parameters, the whole model first.

    Δ₂, Δ₂/η and its three terms add up over groups. The norm part and the angle part are those of
    the group's own gradients and do not.
    """
    names, index = grouped(result.layout, by)
    for pair, by_seed in result.comparisons.items():
        found = [_by_group(one, index) for one in by_seed.values()]
        for g, group in enumerate((WHOLE, *names)):
            for quantity, unit in _GROUP.items():
                mean, half = over_seeds([one[quantity][g] for one in found])
                if np.isnan(mean):
                    continue
                where = {"comparison": str(pair), "group": group, "quantity": quantity}
                numbers = {"mean": mean, "low": mean - half, "high": mean + half}
                yield where | {"unit": unit} | numbers | {"seeds": len(found)}


def _by_group(one: Comparison, index: Any) -> dict[str, Floats]:
    """Return each quantity by group, `(1 + g,)`."""
    inner, second = _summed(one.inner, index), _summed(one.second, index)
    exact, split = exact_terms(inner[:, :4, :4]), norm_angle_split(inner[:, :4, :4])
    of_a, of_b = drift(inner[:, :4, :4])
    errors = [
        np.array([linear_error(g, *which) for g in inner]) for which in ((0, 2, 4), (1, 3, 5))
    ]
    values = (
        second,
        exact.total,
        exact.gb_sa,
        exact.ga_sb,
        exact.sa_sb,
        split.norm,
        split.angle,
        of_a.moved,
        of_b.moved,
        errors[0][:, 2],
        errors[1][:, 2],
        errors[0][:, 0],
        errors[1][:, 0],
        errors[0][:, 3],
        errors[1][:, 3],
    )
    return dict(zip(_GROUP, values, strict=True))


def _summed(values: Floats, index: Any) -> Floats:
    groups = np.zeros((int(index.max()) + 1, *values.shape[1:]))
    np.add.at(groups, index, values)
    return np.concatenate([values.sum(axis=0, keepdims=True), groups])


def condition_rows(result: Delta2) -> Iterator[Row]:
    """Yield the stage-2 condition at every checkpoint, for each arm and seed."""
    for label, by_seed in result.tested.items():
        for seed, found in by_seed.items():
            trained = result.arms.members[label][seed].betas()
            for one in found:
                g, condition = one.gradients, one.condition
                yield {
                    "arm": label,
                    "seed": seed,
                    "checkpoint": one.checkpoint,
                    "in_place": one.name,
                    "trained": one.name in trained,
                    "beta_1": one.own,
                    "beta_2": one.mixed,
                    "gb_ga": g.gb_ga,
                    "gm_ga": g.gm_ga,
                    "cos_gb_ga": condition.cos_b,
                    "cos_gm_ga": condition.cos_m,
                    "norm_ga": g.norm_a,
                    "norm_gb": g.norm_b,
                    "norm_gm": g.norm_m,
                    "margin": condition.margin,
                    "state": condition.state,
                    "printed_margin": condition.printed_margin,
                    "printed_holds": condition.printed_holds,
                }


def _draws(result: Delta2) -> Iterator[Row]:
    for seed, found in result.draws.items():
        for k, (value, null) in enumerate(zip(found.draws, found.shuffled, strict=True)):
            at = {"seed": seed, "draw": k, "T": value, "T_shuffled": null}
            yield at | {"v_ga0": found.offset, "weight": found.weight}
