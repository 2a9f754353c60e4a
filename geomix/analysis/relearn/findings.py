"""Findings of `geomix analyze relearn`: what the cues bring back, and what relearning saves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomix.analysis.findings import Finding
from geomix.analysis.relearn.result import Arm, Member, Relearn
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule


def findings(result: Relearn, rule: Rule) -> Iterator[Finding]:
    """Yield what the cues bring back beyond the best null, then the savings, arm by arm.

    Args:
        result: of the measurement.
        rule: what was declared before the runs; its smallest effect is in points of recall.
    """
    for arm in result.arms:
        yield _recovered(result, arm, rule)
    for arm in result.arms:
        yield from _saved(result, arm)


def excess(member: Member, name: str) -> float:
    """Return by how much more lost facts come back than with the best null, in points."""
    return member.recovered(name, *member.named) - member.best_null(name)[1]


def _recovered(result: Relearn, arm: Arm, rule: Rule) -> Finding:
    step, rate = arm.members[0].named
    claim = f"{arm.label}: cues bring back other facts of {result.name} beyond the best null"
    values = [excess(member, result.name) for member in arm.members if member.courses]
    if not values:
        return Finding(claim, np.nan, np.nan, np.nan, "points", 0, "undetermined", _nothing(arm))
    mean, half = over_seeds(values)
    nulls = [member.best_null(result.name) for member in arm.members if member.courses]
    own = [m.recovered(result.name, step, rate) for m in arm.members if m.courses]
    lacking = rule.lacking(len(values))
    sentence = (
        f"{np.mean(own):.0f} % of the lost facts that were no cues are right after {step} "
        f"step{'s' * (step > 1)} at {rate:g} × the rate; best null "
        f"{np.mean([value for _, value in nulls]):.0f} % ({nulls[0][0]})."
    )
    word = rule.judge(mean - half, mean + half, len(values))
    said = f"{sentence} No verdict: {lacking}." if lacking else sentence
    return Finding(claim, mean, mean - half, mean + half, "points", len(values), word, said)


def _nothing(arm: Arm) -> str:
    """Return why there are no courses."""
    lost = max(int(member.lost.sum()) for member in arm.members)
    learnt = max(int(member.scores["start"].right.sum()) for member in arm.members)
    if not learnt:
        return "No fact was right at the end of its own stage: nothing could be lost."
    if not lost:
        return "No fact was lost: all that were right at the end of their stage still are."
    return "One fact alone was lost: none would be left beside the cue."


def _saved(result: Relearn, arm: Arm) -> Iterator[Finding]:
    found = [member.saved(result.name) for member in arm.members]
    for key, against in (("savings", "θ_0"), ("net", "unseen facts")):
        known = [one[key][0] for one in found if key in one]
        if not known:
            continue
        bounds = [str(one) for one in known if one.bound or np.isnan(one.value)]
        values = [one.value for one in known if not one.bound]
        mean, half = over_seeds(values) if values else (float("nan"), float("nan"))
        claim = f"{arm.label}: savings in relearning {result.name}, against {against}"
        sentence = "1: nothing to relearn; 0: as if it had never been learnt."
        if bounds:
            sentence += f" Bounds alone, not in the mean: {', '.join(bounds)}."
        ends = (mean - half, mean + half)
        yield Finding(claim, mean, *ends, "1", len(values), "undetermined", sentence)
