"""Fits of forgetting to each predictor, on points that the fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geomix.analysis.kl_law.result import Key, Point, keys_of
from geomix.measures.cross_validation import FORMS, Bools, Validated, apart_from, validate

LEAST_POINTS = 30
"""Fewest points of a fit."""

LEAST_ARMS = 4
"""Fewest arms: a law over methods is not one of two of them."""

LEAST_OTHERS = 10
"""Fewest points from which one is predicted."""

OUTCOMES = ("nats", "exact_match")


def apart(points: Sequence[Point], leave: str) -> Bools:
    """Return which points serve to predict each, `(n, n)`: of other runs, arms and seeds."""
    labels: list[list[object]] = [[one.run for one in points]]
    if leave in ("both", "arms"):
        labels.append([one.arm for one in points])
    if leave in ("both", "seeds"):
        labels.append([one.seed for one in points])
    return apart_from(*labels)


def lacking(points: Sequence[Point], leave: str) -> str:
    """Return why nothing is fitted; "" if something is."""
    arms = len({point.arm for point in points})
    if len(points) < LEAST_POINTS or arms < LEAST_ARMS:
        there = f"{len(points)} of {arms} arm" + "s" * (arms != 1)
        return f"it needs {LEAST_POINTS} points of {LEAST_ARMS} arms, and there are {there}"
    fewest = int(apart(points, leave).sum(axis=1).min())
    if fewest < LEAST_OTHERS:
        whose = {"both": "other arms and seeds", "arms": "other arms", "seeds": "other seeds"}
        return (
            f"a point needs {LEAST_OTHERS} others of {whose[leave]}, in other runs, to be "
            f"predicted from, and one has {fewest}"
        )
    return ""


def fitted(points: Sequence[Point], leave: str) -> dict[tuple[Key, str, str], Validated]:
    """Cross-validate every predictor that all points have, for each outcome, in each form."""
    others = apart(points, leave)
    arms = [one.arm for one in points]
    units = [(one.seed, one.stage) for one in points]
    found = {}
    for outcome in OUTCOMES:
        y = np.array([one.forgotten[outcome] for one in points])
        if np.ptp(y) == 0:
            continue
        for key in keys_of(points):
            values = np.array([one.value(key) for one in points], dtype=np.float64)
            x = np.maximum(values, 0.0)  # rounding may leave a divergence below 0
            for form in FORMS:
                found[key, outcome, form] = validate(form, x, y, others, arms, units)
    return found
