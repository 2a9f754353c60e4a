"""Findings of `geomix analyze forgetting`: each arm's change, and differences between arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from geomix.analysis.findings import Finding
from geomix.analysis.forgetting.result import Contrast, Forgetting
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule, Verdict

_ALONE = "No verdict: beside a control, the control's steps would count as the mixing's."


def findings(result: Forgetting, rule: Rule) -> Iterator[Finding]:
    """Yield each difference between arms, then the change of the loss in each arm.

    Args:
        result: of the measurement.
        rule: what was declared before the runs; its smallest effect is in nats.
    """
    for contrast in result.contrasts:
        if contrast.pairs:
            yield _difference(result, contrast, rule)
    for arm in result.arms:
        values = [member.real.change for member in arm.members]
        judged = _judged(values, rule)
        shares = [m.real.first / m.real.change for m in arm.members if m.real.change]
        first = f"{100 * float(np.mean(shares)):.0f} %" if shares else "no part"
        sentence = f"First order at {result.start} has {first} of it. {judged[1]}"
        claim = f"{arm.label}: {result.title} forgets {result.name}"
        yield Finding(claim, *_interval(values), "nats", len(values), judged[0], sentence.strip())


def _difference(result: Forgetting, contrast: Contrast, rule: Rule) -> Finding:
    values = contrast.differences
    judged = _judged(values, rule) if contrast.judged else ("undetermined", _ALONE)
    one, other = contrast.reference.label, contrast.arm.label
    claim = f"{other} forgets less of {result.name} than {one}"
    mean = float(np.mean(values))
    what = f"{abs(mean):.3g} nats {'less' if mean >= 0 else 'more'}"
    sentence = f"{other} forgot {what}. {judged[1]}".strip()
    return Finding(claim, *_interval(values), "nats", len(values), judged[0], sentence)


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    mean, half = over_seeds(list(values))
    return mean, mean - half, mean + half


def _judged(values: Sequence[float], rule: Rule) -> tuple[Verdict, str]:
    """Return the verdict, and why there is none."""
    _, low, high = _interval(values)
    lacking = rule.lacking(len(values))
    reason = f"No verdict: {lacking}." if lacking else ""
    return rule.judge(low, high, len(values)), reason
