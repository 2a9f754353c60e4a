"""Differences between arms, seed by seed, and the secants of each arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomix.analysis.directions import UPDATE
from geomix.analysis.grad_angle.pair import null_of
from geomix.analysis.grad_angle.result import WHOLE, ArmAngles, GradAngle
from geomix.analysis.parameter_groups import grouped
from geomix.measures.cosine import Floats
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule, Verdict


@dataclass(frozen=True, slots=True)
class Contrast:
    """One arm against the first, at one checkpoint, over the seeds that both have.

    Attributes:
        arm, against: the two.
        moment: label of the checkpoint.
        first, second: the two directions of the cosine.
        difference: of the cosines, mean over seeds; positive if `arm` has the smaller angle.
        half_width: half of its 95 % interval (Student's t); nan below two seeds.
        beyond_null: the difference minus that of the held-out set's cosine; nan without one.
        beyond_half_width: half of its interval.
        n: paired seeds.
        verdict: by the rule on "the angle is smaller in `arm`"; if the difference beyond the
            held-out set's is not also above 0, `supported` becomes `undetermined`.
    """

    arm: str
    against: str
    moment: str
    first: str
    second: str
    difference: float
    half_width: float
    beyond_null: float
    beyond_half_width: float
    n: int
    verdict: Verdict


def contrasts(result: GradAngle) -> Iterator[Contrast]:
    """Compare every later arm with the first, at each checkpoint but θ_0.

    The cosines are the pair's, and that of its first set with the stage's update.
    """
    base = result.arms[0]
    compared = (result.pair.names, (result.pair.first, UPDATE))
    for arm in result.arms[1:]:
        seeds = [seed for seed in arm.seeds if seed in base.seeds]
        if not seeds:
            continue
        for label in arm.labels:
            if label not in base.labels or label == "θ_0":
                continue
            for first, second in compared:
                values = _paired(arm, base, seeds, label, first, second)
                if np.isnan(values).all():
                    continue
                null_pair = null_of(first, second)
                none = np.full_like(values, np.nan)
                same = none if null_pair is None else _paired(arm, base, seeds, label, *null_pair)
                beyond = values - same
                mean, half = over_seeds(values)
                null, null_half = over_seeds(beyond)
                judged = _judged(result.rule, len(seeds), (mean, half), (null, null_half))
                where = (arm.arm, base.arm, label, first, second)
                yield Contrast(*where, mean, half, null, null_half, len(seeds), judged)


def _judged(rule: Rule, n: int, one: tuple[float, float], beyond: tuple[float, float]) -> Verdict:
    """Judge a difference; each pair is a mean and half of its interval."""
    judged = rule.judge(one[0] - one[1], one[0] + one[1], n)
    return judged if judged != "supported" or beyond[0] - beyond[1] > 0 else "undetermined"


def _paired(
    arm: ArmAngles, base: ArmAngles, seeds: list[int], label: str, first: str, second: str
) -> Floats:
    """Return the differences of a cosine, one a seed."""
    one, other = arm.cosine(label, first, second), base.cosine(label, first, second)
    mine = [arm.seeds.index(seed) for seed in seeds]
    theirs = [base.seeds.index(seed) for seed in seeds]
    return np.asarray(one[mine] - other[theirs])


def has_secants(result: GradAngle) -> bool:
    """Return whether any checkpoint has secants: only those computed from weights do."""
    return any(not np.isnan(arm.secants.moved).all() for arm in result.arms)


def secant_rows(result: GradAngle) -> Iterator[dict[str, Any]]:
    """Yield the tidy table of the secants: every arm, checkpoint that has one, group and set.

    `secant` is (g(θ) − g(θ_start))·(θ − θ_start) and `first_order` g(θ_start)·(θ − θ_start), both
    in nats, means over seeds; `cosine` that of the gradient's change with the displacement.
    """
    names, index = grouped(result.layout, result.by)
    for arm in result.arms:
        for m, label in enumerate(arm.labels):
            if np.isnan(arm.secants.moved[:, m]).all():
                continue
            for g, group in enumerate((WHOLE, *names)):
                mine = slice(None) if g == 0 else np.flatnonzero(index == g - 1)
                for s, name in enumerate(arm.sets):
                    here = arm.secants.here[:, m, mine, s].sum(axis=1)
                    start = arm.secants.start[:, m, mine, s].sum(axis=1)
                    turned = arm.secants.turned[:, m, mine, s].sum(axis=1)
                    moved = arm.secants.moved[:, m, mine].sum(axis=1)
                    mean, half = over_seeds(here - start)
                    first, first_half = over_seeds(start)
                    length = np.sqrt(turned * moved)
                    with np.errstate(divide="ignore", invalid="ignore"):
                        cosine, cosine_half = over_seeds((here - start) / length)
                    yield {
                        "arm": arm.arm,
                        "moment": label,
                        "group": group,
                        "set": name,
                        "secant": mean,
                        "half_width": half,
                        "first_order": first,
                        "first_order_half_width": first_half,
                        "cosine": cosine if result.metric == "euclidean" else float("nan"),
                        "cosine_half_width": cosine_half,
                        "moved": float(np.sqrt(moved).mean()),
                        "n": len(arm.runs),
                    }
