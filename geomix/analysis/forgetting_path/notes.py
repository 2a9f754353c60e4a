"""Notes to a split of forgetting: whether it can be trusted, and its meaning."""

from __future__ import annotations

import numpy as np

from geomix.analysis.forgetting_path.record import Floats
from geomix.analysis.forgetting_path.split import ArmSplit, ForgettingPath, interval

MOST_ERROR = 0.01
"""Largest error of Simpson's total, as a share of the measured change."""

MOST_MOVED = 0.1
"""Largest share of a split that may move with half the snapshots; set before any measurement."""

_HALF = 0.5
_FEW = 3


def notes(result: ForgettingPath, name: str) -> list[str]:
    """Return notes, one sentence a line, each true of these runs only."""
    lines = [verdict(arm, name) for arm in result.arms]
    lines += [where for arm in result.arms if (where := location(result, arm, name))]
    lines.append(
        "Error: Simpson's total against the measured change, which certifies the total alone. "
        "Moved: what of the split sits elsewhere with half the snapshots (trapezoid rule)."
    )
    lines += [
        f"{arm.arm}: the path ends at step {last} of the stage's {steps}."
        for arm in result.arms
        for last, steps in arm.steps
        if last < steps
    ]
    if any(len(arm.parts) == 1 for arm in result.arms):
        lines.append(
            "By source: not recorded throughout; `train.update_shares: true` gives each its part."
        )
    if all(len(arm.seeds) == 1 for arm in result.arms):
        lines.append("One seed: no interval over seeds; nothing is claimed beyond this run.")
    if result.missing:
        lines.append(f"No snapshots yet, left out: {', '.join(result.missing)}.")
    return lines


def verdict(arm: ArmSplit, name: str) -> str:
    """Return whether both checks hold, in the worst of the arm's runs."""
    error, groups, parts = worst(arm, name)
    total = f"Simpson's total is {percent(error)} off the measured change (1 % at most)"
    apart = f"{percent(groups)} of the split by place"
    apart += f" and {percent(parts)} of that by source" if np.isfinite(parts) else ""
    stable = f"with half the snapshots {apart} sits elsewhere (10 % at most)"
    if not np.isfinite(groups):
        stable = "whether its split is stable is not recorded (`record.pairs: true`)"
    fails = not error <= MOST_ERROR or np.nanmax([groups, parts, 0.0]) > MOST_MOVED
    unknown = not np.isfinite(groups)
    word = "is not to be trusted" if fails else "is half checked" if unknown else "can be trusted"
    return f"Verdict, {arm.arm}: the attribution of {name} {word}: {total}; {stable}."


def worst(arm: ArmSplit, name: str) -> tuple[float, float, float]:
    """Return the largest error and shares moved, among groups and among parts, over the runs."""
    groups, parts = arm.moved(name).max(axis=0)
    return float(arm.error(name).max()), float(groups), float(parts)


def location(result: ForgettingPath, arm: ArmSplit, name: str) -> str:
    """Describe where most of the change is, and which source caused it."""
    s = arm.sets.index(name)
    mean: Floats = arm.simpson[:, :, s].mean(axis=0)
    total = float(mean[0, 0])
    if not total:
        return ""
    order = np.argsort(-mean[1:, 0] * np.sign(total), kind="stable")
    shares = mean[1:, 0][order] / total
    reached = int(np.searchsorted(np.cumsum(shares), _HALF)) + 1
    count = min(reached, _FEW)
    most = ", ".join(
        f"{result.groups[1 + g]} {percent(share)}"
        for g, share in zip(order[:count], shares[:count], strict=True)
    )
    rose = f"{'rose' if total > 0 else 'fell'} by {nats(abs(total))} nats"
    spread = interval(arm.simpson[:, 0, s, 0])["half_width"]
    rose += f" (± {nats(spread)}, {len(arm.seeds)} seeds)" if np.isfinite(spread) else ""
    text = f"{arm.arm}: the loss of {name} {rose} in {result.title}, most of it in {most}"
    sources = ", ".join(
        f"{part} {nats(value, sign=True)}"
        for part, value in zip(arm.parts[1:], mean[0, 1:], strict=True)
    )
    return text + (f"; by source: {sources}." if sources else ".")


def percent(share: float) -> str:
    """Format a share of 1 in percent with two digits."""
    if not np.isfinite(share):
        return "–"
    size = 100 * abs(share)
    digits = 0 if size >= 10 else 1 if size >= 1 else 2  # noqa: PLR2004
    return f"{100 * share:.{digits}f} %".replace("-", "−")


def nats(value: float, *, sign: bool = False) -> str:
    """Format a change of a loss with three decimals, or in scientific notation below 0.001."""
    if not np.isfinite(value):
        return "–"
    plain = value == 0 or abs(value) >= 1e-3  # noqa: PLR2004
    text = f"{value:+.3f}" if plain else f"{value:+.0e}"
    return (text if sign or value < 0 else text.removeprefix("+")).replace("-", "−")
