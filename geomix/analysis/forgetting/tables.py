"""Tidy tables of `geomix analyze forgetting`; changes in nats, one row a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from geomix.analysis.forgetting.expansion import MODELS, Expansion
from geomix.analysis.forgetting.measure import null_mean
from geomix.analysis.forgetting.result import Arm, Forgetting, Member, PathPair
from geomix.analysis.forgetting.segments import Segments
from geomix.measures.expansions import needed_text
from geomix.measures.path_factors import FACTORS, signs_agree
from geomix.measures.reach import GRID

Row = dict[str, Any]

ALL = "all"
"""Group of all parameters."""


def tables(result: Forgetting) -> Mapping[str, Sequence[Row]]:
    """Return every table by the suffix of its file's name; tables without rows are left out."""
    found = {
        "": order_rows(result),
        "reach": reach_rows(result),
        "null": null_rows(result),
        "expansions": level_rows(result),
        "segments": segment_rows(result),
        "contrasts": contrast_rows(result),
        "groups": group_rows(result),
        "sharpness": sharpness_rows(result),
    }
    return {name: rows for name, made in found.items() if (rows := list(made))}


def _members(result: Forgetting) -> Iterator[tuple[Row, Arm, Member]]:
    for arm in result.arms:
        for member in arm.members:
            yield {"arm": arm.label, "seed": member.seed}, arm, member


def order_rows(result: Forgetting) -> Iterator[Row]:
    """Yield the real change, its orders at the start, the reach of each model, and the null."""
    for where, _, member in _members(result):
        real = member.real
        null, null_curvature = null_mean(member)
        row = where | {
            "set": result.name,
            "facts": member.counted,
            "reduction": member.reduction,
            "loss": real.loss,
            "change": real.change,
            "first": real.first,
            "second": real.second,
            "gauss_newton": real.gauss_newton,
            "rest": real.rest,
            "first_at_end": member.end,
            "length": real.length,
            "curvature": real.curvature,
        }
        for model in MODELS:
            key = _key(model)
            row |= {f"reach_{key}": real.reach(model).text}
            row |= {f"reach_{key}_length": real.reach(model).t * real.length}
        needed = needed_text(member.levels) if member.levels else ""
        row |= {"expansions_needed": needed, "null_change": null}
        yield row | {"null_curvature": null_curvature, "run": member.run}


def _key(model: str) -> str:
    return {"first order": "first", "Hessian": "hessian", "Gauss–Newton": "gauss_newton"}[model]


def reach_rows(result: Forgetting) -> Iterator[Row]:
    """Yield the loss along the displacement, measured and by each local model."""
    for where, _, member in _members(result):
        yield from _curves(where | {"draw": "real"}, member.real, MODELS)
        for draw, one in enumerate(member.null):
            yield from _curves(where | {"draw": f"permuted {draw + 1}"}, one, MODELS[:2])


def _curves(where: Row, one: Expansion, models: Sequence[str]) -> Iterator[Row]:
    modelled = {model: one.model(model) for model in models}
    reaches = {model: one.reach(model).t for model in models}
    for i, t in enumerate(GRID):
        row = where | {"t": t, "length": t * one.length}
        yield row | {"curve": "measured", "change": float(one.changes[i]), "reach": float("nan")}
        for model in models:
            value = float(modelled[model][i])
            yield row | {"curve": model, "change": value, "reach": reaches[model]}


def null_rows(result: Forgetting) -> Iterator[Row]:
    """Yield the permuted displacements' results beside the real one's."""
    for where, _, member in _members(result):
        named = {"real": member.real}
        named |= {f"permuted {draw + 1}": one for draw, one in enumerate(member.null)}
        for name, one in named.items():
            yield where | {
                "draw": name,
                "change": one.change,
                "first": one.first,
                "second": one.second,
                "curvature": one.curvature,
                "reach_hessian": one.reach("Hessian").text,
            }


def level_rows(result: Forgetting) -> Iterator[Row]:
    """Yield F₁ and F₂ of every number of expansions."""
    for where, _, member in _members(result):
        for level in member.levels:
            yield where | {
                "expansions": level.n,
                "first": level.first,
                "second": level.second,
                "measured": member.real.change,
                "error_first": level.error_first,
                "error_second": level.error_second,
            }


def segment_rows(result: Forgetting) -> Iterator[Row]:
    """Yield norm, cosine and length of each segment, for K segments and for half as many."""
    for where, _, member in _members(result):
        if member.path is None:
            continue
        fails = member.path.fails(result.index)
        for name, path in (("K", member.path.fine), ("K/2", member.path.coarse)):
            yield from _segments(where | {"partition": name}, path, fails)


def _segments(where: Row, path: Segments, fails: str) -> Iterator[Row]:
    factors = path.factors
    for k in range(len(path.measured)):
        yield where | {
            "segment": k + 1,
            "from_step": path.steps[k],
            "to_step": path.steps[k + 1],
            "share": (path.steps[k] + path.steps[k + 1]) / 2 / path.steps[-1],
            "change": float(factors.integral[k]),
            "measured": float(path.measured[k]),
            "norm": float(factors.norm[k]),
            "cosine": float(factors.cosine[k]),
            "length": float(factors.length[k]),
            "fails": fails,
        }


def contrast_rows(result: Forgetting) -> Iterator[Row]:
    """Yield the factors of differences between arms: every segment, and their sum by Shapley."""
    for contrast in result.contrasts:
        for pair in contrast.paths(result.index):
            where = {"contrast": contrast.title, "seed": pair.seed, "paired": pair.pairing}
            yield from _pair(where, pair)


def _pair(where: Row, pair: PathPair) -> Iterator[Row]:
    for name, one in (("K", pair.fine), ("K/2", pair.coarse)):
        for k, ratio in enumerate(one.ratios):
            labels = where | {"partition": name, "segment": str(k + 1)}
            if ratio:
                yield labels | {"form": "ln ratio"} | _three(one.logs[k]) | {"fails": pair.fails}
            yield (
                labels | {"form": "Shapley, nats"} | _three(one.shapley[k]) | {"fails": pair.fails}
            )
        labels = where | {"partition": name, "segment": "sum", "form": "Shapley, nats"}
        yield labels | _three(one.parts) | {"fails": pair.fails}
    stable = signs_agree(pair.fine.parts, pair.coarse.parts)
    labels = where | {"partition": "both", "segment": "sum", "form": "sign is the same"}
    yield labels | _three(stable.astype(float)) | {"fails": pair.fails}


def _three(values: Any) -> Row:
    named = {name: float(value) for name, value in zip(FACTORS, values, strict=True)}
    return named | {"total": float(np.sum(values))}


def group_rows(result: Forgetting) -> Iterator[Row]:
    """Yield the change by parameter group; then that of each difference by factor."""
    for where, arm, member in _members(result):
        if member.path is None:
            continue
        fine, coarse = (
            path.grouped(result.index).integral.sum(axis=0)
            for path in (member.path.fine, member.path.coarse)
        )
        for g, group in enumerate(result.groups):
            row = {"of": arm.label, "seed": where["seed"], "group": group}
            nothing = dict.fromkeys(FACTORS, float("nan"))
            row |= {"change": float(fine[g]), "half_as_many": float(coarse[g])}
            yield row | nothing | {"fails": member.path.fails(result.index)}
    for contrast in result.contrasts:
        for pair in contrast.paths(result.index):
            for g, group in enumerate(result.groups):
                row = {"of": contrast.title, "seed": pair.seed, "group": group}
                parts = _three(pair.groups[g])
                row |= {"change": parts.pop("total"), "half_as_many": float("nan")}
                yield row | parts | {"fails": pair.fails}


def sharpness_rows(result: Forgetting) -> Iterator[Row]:
    """Yield critical step, sharpness, tolerance step and curvature along recorded segments."""
    for where, _, member in _members(result):
        for one in member.sharpness:
            yield where | {
                "checkpoint": f"θ_{one.checkpoint}",
                "steps": one.steps,
                "set": one.name,
                "loss": one.loss,
                "slope": one.slope,
                "curvature": one.curvature,
                "critical_step": one.critical.step,
                "critical": one.critical.text,
                "sharpness": one.critical.sharpness,
                "tolerance_step": one.tolerance.step,
                "tolerance": one.tolerance.text,
            }
