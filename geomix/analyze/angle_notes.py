"""What must stand beside a table of angles: how exact, how small, and what is not claimed."""

from __future__ import annotations

import math

import numpy as np

from geomix.analyze.angles import ArmAngles, GradAngle
from geomix.geometry.cosine import cosines, norms

ONE_SEED = "One seed: no interval over seeds; nothing is claimed beyond this run."

NO_NULL = (
    "No held-out set was recorded (a file that has no rows left over has none): "
    "nothing to read D_A's cosines against."
)

_PLAIN = (1e-3, 1e3)
"""Norms in this range are written without an exponent."""

_WORDS = {"token": "the mean over target tokens", "example": "the mean over examples"}


def notes(result: GradAngle) -> list[str]:
    """One sentence a line, each true of this run alone."""
    lines = [verdict(arm) for arm in result.arms]
    lines.append(_seeds(result))
    ratios = [f"{number(ratio)} ({arm.arm})" for arm in result.arms if (ratio := remaining(arm))]
    if ratios:
        lines.append(
            f"|g_A| at θ_A over |g_A| at θ_0: {', '.join(ratios)}; "
            "the smaller it is, the less a cosine with g_A at θ_A says."
        )
    if any("held-out" in arm.sets for arm in result.arms):
        lines.append(
            "held-out: unseen examples of D_A's template, never trained on; "
            "the null that D_A's other cosines are read against."
        )
    else:
        lines.append(NO_NULL)
    kinds = sorted({moment.reduction for arm in result.arms for moment in arm.moments})
    loss = "; ".join(f"{kind} ({_WORDS.get(kind, kind)})" for kind in kinds)
    lines.append(f"Gradients are those of each set's mean loss; reduction: {loss}.")
    lines.extend(_probe_lines(result))
    if result.missing:
        lines.append(f"No snapshots yet, left out: {', '.join(result.missing)}.")
    return lines


def verdict(arm: ArmAngles) -> str:
    """The whole model's cosine of D_A and D_B at θ_0 and at the first recorded step of stage 2."""
    first = next((m for m in arm.moments if m.stage == 1 and not m.is_boundary), None)
    start = next((m for m in arm.moments if m.label == "θ_0"), None)
    told = [
        f"{signed(_cosine(arm, moment.label, 'D_B'))} at {moment.label}{remark}"
        for moment, remark in ((start, ""), (first, ", the first recorded step of stage 2"))
        if moment
    ]
    if not told:
        return f"Verdict, {arm.arm}: undetermined; neither θ_0 nor a step of stage 2 is recorded."
    return (
        f"Verdict, {arm.arm}: undetermined with one seed; "
        f"the whole model's cos(g_A, g_B) is {' and '.join(told)}."
    )


def _seeds(result: GradAngle) -> str:
    count = len({arm.seed for arm in result.arms})
    if count == 1:
        return ONE_SEED
    return (
        f"Arms of {count} seeds, one run each: "
        "no interval over seeds; nothing is claimed beyond these runs."
    )


def remaining(arm: ArmAngles) -> float | None:
    """|g_A(θ_A)| / |g_A(θ_0)| of the whole model; None unless both are recorded and defined."""
    labels = [moment.label for moment in arm.moments]
    if "θ_0" not in labels or "θ_A" not in labels:
        return None
    lengths = norms(arm.inner[:, 0])[:, arm.sets.index("D_A")]
    at_0, at_a = (float(lengths[labels.index(label)]) for label in ("θ_0", "θ_A"))
    return at_a / at_0 if at_0 > 0 and math.isfinite(at_a) else None


def _cosine(arm: ArmAngles, label: str, other: str) -> float:
    m = [moment.label for moment in arm.moments].index(label)
    table = cosines(arm.inner[m, 0])
    return float(table[arm.sets.index("D_A"), arm.sets.index(other)])


def _probe_lines(result: GradAngle) -> list[str]:
    known = {arm.arm: arm.probes for arm in result.arms if arm.probes}
    if not known:
        return ["How much of each set was probed is not recorded (no probes.json)."]
    texts = {arm: _probe_text(probes) for arm, probes in known.items()}
    if len(set(texts.values())) == 1:
        return [f"Probes: {next(iter(texts.values()))}."]
    return [f"Probes of {arm}: {text}." for arm, text in texts.items()]


def _probe_text(probes: dict[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{name} {n} of {of} ({'the whole set: exact' if n == of else 'a subsample'})"
        for name, (n, of) in probes.items()
    )


def signed(value: float) -> str:
    """A cosine in six characters."""
    return "–" if np.isnan(value) else f"{value:+.3f}"


def number(value: float) -> str:
    """A norm in at most seven characters."""
    if not math.isfinite(value):
        return "–"
    low, high = _PLAIN
    return f"{value:.3g}" if value == 0 or low <= value < high else f"{value:.1e}"
