"""Tables of `geomix analyze curve`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from geomix.analysis.curve.result import Arm, Curve, Fitted
from geomix.config.names import set_name
from geomix.measures.intervals import over_seeds
from geomix.measures.law_choice import Candidate
from geomix.measures.stability_gap import stability_gap

Rows = list[dict[str, Any]]

UNITS = {"log_probability": "nats an answer", "exact_match": "%", "bits": "bits a fact"}

_POINTS = 60
"""Points of a drawn law."""


def tables(result: Curve) -> dict[str, Rows]:
    """Return the laws (main), the measured points, the gaps, and the worst cases."""
    return {
        "": list(_laws(result)),
        "points": list(_points(result)),
        "gap": gap_rows(result),
        "worst_case": list(_worst(result)),
    }


def _laws(result: Curve) -> Iterator[dict[str, Any]]:
    for arm in result.arms:
        for fitted in arm.fitted:
            at: dict[str, Any] = {"arm": arm.label, "set": result.name, "against": fitted.axis}
            at |= {"evaluations": len(fitted.times), "n": len(arm.courses)}
            if fitted.choice is None:
                yield {**at, **dict.fromkeys(_law_columns()), "state": f"no fit: {fitted.why}"}
                continue
            for one in fitted.choice.candidates:
                yield {**at, **_law(one)}


def _law_columns() -> list[str]:
    names = ["tau", "alpha", "slope", "floor"]
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return ["law", *ends, "error", "aicc", "behind", "weight", "chosen", "state"]


def _law(one: Candidate) -> dict[str, Any]:
    ends = (*one.tau, *one.alpha, *one.slope, *one.floor)
    rest = (one.error, one.aicc, one.behind, one.weight, one.chosen, one.state)
    return dict(zip(_law_columns(), (one.law.name, *ends, *rest), strict=True))


def _points(result: Curve) -> Iterator[dict[str, Any]]:
    names = [
        name for name in UNITS if all(name in c.scores for a in result.arms for c in a.courses)
    ]
    for arm in result.arms:
        for course in arm.courses:
            for i, steps in enumerate(course.steps):
                at = {"arm": arm.label, "seed": course.seed, "set": result.name}
                at |= {"facts": course.facts, "stage": course.stages[i], "step": course.within[i]}
                times = {
                    axis: float(course.times[axis][i]) if axis in course.times else np.nan
                    for axis in ("tokens", "length")
                }
                scores = {name: float(course.scores[name][i]) for name in names}
                yield {**at, "steps": steps, **times, "retention": course.retention[i], **scores}


def gap_rows(result: Curve) -> Rows:
    """Return the stability gap of each arm, seed and score, one a row."""
    found = []
    for arm in result.arms:
        for course in arm.courses:
            for name, values in course.scores.items():
                gap = stability_gap(course.steps, values.tolist())
                at = {"arm": arm.label, "seed": course.seed, "set": result.name}
                at |= {"score": name, "unit": UNITS[name]}
                derived = {"depth": gap.depth, "recovered": gap.recovered}
                found.append({**at, **asdict(gap), **derived})
    return found


def _worst(result: Curve) -> Iterator[dict[str, Any]]:
    for arm in result.arms:
        for course in arm.courses:
            for stage, current, least, worst in course.worst:
                at = {"arm": arm.label, "seed": course.seed, "after": set_name(stage)}
                yield {**at, "exact_match": current, "min_acc": least, "wc_acc": worst}


def drawn_rows(result: Curve) -> Iterator[dict[str, Any]]:
    """Yield what the figure shows: the measured R, and the best law of each arm and axis."""
    for arm in result.arms:
        for fitted in arm.fitted:
            yield from _drawn(arm, fitted)


def _drawn(arm: Arm, fitted: Fitted) -> Iterator[dict[str, Any]]:
    at = {"arm": arm.label, "against": fitted.axis, "n": len(arm.courses)}
    for time, values in zip(fitted.times, fitted.retention.T, strict=True):
        mean, half = over_seeds(values)
        yield {**at, "law": "measured", "time": time, "retention": mean, "half_width": half}
    if fitted.choice is None or fitted.choice.best is None:
        return
    best = fitted.choice.best
    times = np.geomspace(fitted.times[0], fitted.times[-1], _POINTS)
    for time, value in zip(times, curve_of(best, times), strict=True):
        yield {**at, "law": best.law.name, "time": time, "retention": value, "half_width": np.nan}


def curve_of(one: Candidate, times: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a fitted law's R at points in time, `(n,)`."""
    alpha = np.array([one.alpha[0] if one.law.family == "power" else 1.0])
    beta = one.slope[0] if one.law.family == "logarithm" else 1.0
    beta = 1 - one.floor[0] if one.law.floor else beta
    shape = one.law.shape(np.asarray(times, dtype=np.float64), np.array([one.tau[0]]), alpha)
    found: np.ndarray[Any, Any] = 1 + beta * shape[0]
    return found
