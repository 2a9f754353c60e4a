"""Notes to a table of angles: exactness, size, and limits of the claims."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from geomix.analysis.directions import HELD_OUT, UPDATE, is_shuffled
from geomix.analysis.grad_angle.contrasts import Contrast, contrasts, has_secants
from geomix.analysis.grad_angle.pair import Pair, null_of
from geomix.analysis.grad_angle.result import ArmAngles, GradAngle
from geomix.measures.cosine import norms
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule, Verdict

ONE_SEED = "One seed: no interval over seeds; nothing is claimed beyond this run."

NO_NULL = (
    "No held-out set was recorded (a file that has no rows left over has none): "
    "nothing to read D_A's cosines against."
)


def no_null_of(pair: Pair) -> str:
    """Explain the missing null of a pair without D_A."""
    return (
        f"Held-out examples are of D_A's distribution: the cosine of {pair.first} and "
        f"{pair.second} has no null here."
    )


_PLAIN = (1e-3, 1e3)
"""Range of norms that are written without an exponent."""

_MOST = 6
"""Most contrasts in the notes; the files hold all."""

_WORDS = {"token": "the mean over target tokens", "example": "the mean over examples"}


def notes(result: GradAngle) -> list[str]:
    """Return notes, one sentence a line, each true of these runs only."""
    pair = result.pair
    lines = [verdict(arm, result.rule, pair) for arm in result.arms]
    lines.extend(_contrast_lines(result))
    lines.append(_seeds(result))
    left = [(arm.arm, remaining(arm, pair)) for arm in result.arms]
    ratios = [f"{number(ratio)} ({name})" for name, ratio in left if ratio]
    if ratios:
        g = pair.gradients[0]
        secants = "secants above" if has_secants(result) else "secants, which need the weights"
        lines.append(
            f"|{g}| at {pair.learnt} over |{g}| at θ_0: {', '.join(ratios)}; "
            f"the smaller it is, the less a cosine with {g} at {pair.learnt} says: look at the "
            f"steps after it, and at the {secants}."
        )
    lines.extend(_nulls(result))
    kinds = sorted({checkpoint.reduction for arm in result.arms for checkpoint in arm.checkpoints})
    loss = "; ".join(f"{kind} ({_WORDS.get(kind, kind)})" for kind in kinds)
    lines.append(f"Gradients are those of each set's mean loss; reduction: {loss}.")
    if result.metric == "adam":
        lines.append(
            "Adam's metric: every parameter weighed by 1 / (√v̂ + ε), with one v̂ for all arms of a "
            "seed: the first arm's at θ_A. Single examples are compared in the Euclidean metric."
        )
    lines.extend(_probe_lines(result))
    lines.append(_sources(result))
    lines.extend(result.remarks)
    if result.missing:
        lines.append(f"No snapshots yet, left out: {', '.join(result.missing)}.")
    return lines


def verdict(arm: ArmAngles, rule: Rule, pair: Pair) -> str:
    """Return the verdict on a conflict, with the cosine at θ_0 and at the stage's first record."""
    stage = f"stage {pair.stage + 1}"
    first = next((m for m in arm.checkpoints if m.stage == pair.stage and not m.is_boundary), None)
    start = next((m for m in arm.checkpoints if m.label == "θ_0"), None)
    cosines = [
        (arm.cosine(at.label, *pair.names), f" at {at.label}{remark}", at.label)
        for at, remark in ((start, ""), (first, f", the first recorded step of {stage}"))
        if at
    ]
    if not cosines:
        return f"Verdict, {arm.arm}: undetermined; neither θ_0 nor a step of {stage} is known."
    texts = [with_interval(*over_seeds(values)) + where for values, where, _ in cosines]
    what = f"the whole model's cos({', '.join(pair.gradients)}) is {' and '.join(texts)}"
    n = len(arm.runs)
    if n == 1:
        return f"Verdict, {arm.arm}: undetermined with one seed; {what}."
    if n < rule.planned:
        few = f"{n} seeds ({rule.planned} are needed)"
        return f"Verdict, {arm.arm}: undetermined with {few}; {what}."
    label = cosines[-1][2]
    return f"Verdict, {arm.arm}: {conflict(arm, label, rule, pair)[1]}; {what} (n = {n})."


_CONFLICT = "the gradients of {first} and {second} conflict"
"""Claim that is judged: their cosine is below 0, by more than a held-out set's."""

_SENTENCES: dict[Verdict, str] = {
    "supported": f"supported that {_CONFLICT}, more than a held-out set's do",
    "refuted": f"refuted that {_CONFLICT} by {{smallest:g}} or more",
    "negligible": "negligible: their cosine is within ±{smallest:g}",
    "undetermined": f"undetermined whether {_CONFLICT} more than a held-out set's do",
}


def conflict(arm: ArmAngles, label: str, rule: Rule, pair: Pair) -> tuple[Verdict, str]:
    """Return the verdict on a conflict of a pair of sets at a checkpoint, and its meaning.

    The effect is minus their cosine. If it is supported but not beyond that of held-out examples,
    or there are none to compare it with, the verdict is `undetermined`.
    """
    n = len(arm.seeds)
    if (lacking := rule.lacking(n)) or label not in arm.labels:
        return "undetermined", f"undetermined: {lacking or f'no {label}'}"
    values = -arm.cosine(label, *pair.names)
    (mean, half) = over_seeds(values)
    (null, null_half) = over_seeds(values + arm.null(label, *pair.names))
    word = rule.judge(mean - half, mean + half, n)
    if word == "supported" and not null - null_half > 0:
        word = "undetermined"
    agree = "; they agree" if word == "refuted" and mean + half < 0 else ""
    known = {"smallest": rule.smallest, "first": pair.first, "second": pair.second}
    return word, _SENTENCES[word].format(**known) + agree


def _contrast_lines(result: GradAngle) -> Iterator[str]:
    found, rule, pair = list(contrasts(result)), result.rule, result.pair
    checkpoints = [m for arm in result.arms for m in arm.checkpoints]
    later = {m.label for m in checkpoints if m.stage >= pair.stage and not m.is_boundary}
    within = [c for c in found if c.second == pair.second and c.moment in later]
    first = {c.arm: c for c in reversed(within)}
    updates = {c.arm: c for c in found if c.second == UPDATE and c.moment == pair.start}
    for c in [*first.values(), *updates.values()][:_MOST]:
        if c.n < 2:  # noqa: PLR2004
            continue
        one, second = pair.gradients[0], "u" if c.second == UPDATE else pair.gradients[1]
        lacking = rule.lacking(c.n)
        few = f"; {lacking}" if lacking else ""
        yield (
            f"{c.arm} against {c.against} at {c.moment}: cos({one}, {second}) differs by "
            f"{with_interval(c.difference, c.half_width)}{_beyond(c)} (n = {c.n}{few}): that the "
            f"angle is smaller is {c.verdict}."
        )


def _beyond(contrast: Contrast) -> str:
    if null_of(contrast.first, contrast.second) is None:
        return ", with no held-out set to compare"
    null = with_interval(contrast.beyond_null, contrast.beyond_half_width)
    return f", beyond the held-out set by {null}"


def _seeds(result: GradAngle) -> str:
    seeds = {seed for arm in result.arms for seed in arm.seeds}
    most = max(len(arm.seeds) for arm in result.arms)
    if most > 1:
        return "± is half of a 95 % interval over seeds (Student's t); a row's n is its seeds."
    if len(seeds) == 1:
        return ONE_SEED
    return (
        f"Arms of {len(seeds)} seeds, one run each: "
        "no interval over seeds; nothing is claimed beyond these runs."
    )


def _nulls(result: GradAngle) -> Iterator[str]:
    directions = result.directions
    if HELD_OUT in directions:
        yield (
            "held-out: unseen examples of D_A's template, never trained on; "
            "the null that D_A's other cosines are read against."
        )
    else:
        yield NO_NULL
    if result.pair.null is None:
        yield no_null_of(result.pair)
    if any(map(is_shuffled, directions)):
        yield "shuffled: D_M with the tokens to predict permuted over the set; the null of D_M."
    if UPDATE in directions:
        yield (
            "update (u): minus the way of the weights over the stage (at its start, the one ahead)"
            "; a positive cosine with g_X is a step that lowers the loss of X to first order."
        )


def _sources(result: GradAngle) -> str:
    found = {source for arm in result.arms for source in arm.sources}
    if found == {"record"}:
        return "Taken from the record."
    if found == {"weights"}:
        return "Computed from the weights that are kept."
    pairs = {pair for arm in result.arms for pair in zip(arm.checkpoints, arm.sources, strict=True)}
    ranked = sorted(pairs, key=lambda pair: (pair[0].stage, pair[0].step, pair[1]))
    known = {
        source: ", ".join(dict.fromkeys(m.label for m, s in ranked if s == source))
        for source in sorted(found)
    }
    weights = known.pop("weights", "")
    return f"Computed from weights: {weights}; from the record: {', '.join(known.values())}."


def remaining(arm: ArmAngles, pair: Pair | None = None) -> float | None:
    """Return |g_A(θ_A)| / |g_A(θ_0)| of the whole model, mean over seeds; None if unknown.

    For another pair than D_A and D_B, its first set takes D_A's place, after its own stage.
    """
    pair = pair or Pair()
    if pair.learnt is None or not {"θ_0", pair.learnt} <= {*arm.labels}:
        return None
    lengths = norms(arm.inner.sum(axis=2))[:, :, arm.directions.index(pair.first)]
    at_0, at_a = (lengths[:, arm.labels.index(label)] for label in ("θ_0", pair.learnt))
    if not (at_0 > 0).all() or not np.isfinite(at_a).all():
        return None
    return float((at_a / at_0).mean())


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
        f"{name} {n} of {of} ({_worth(name, n, of)})" for name, (n, of) in probes.items()
    )


def shares_probed(result: GradAngle, names: Sequence[str]) -> str:
    """Return `64 of 2,000 of D_A` for sets not probed whole in an arm; "" if all were."""
    found: dict[str, None] = {}
    for arm in result.arms:
        for name in names:
            n, of = arm.probes.get(name, (0, 0))
            found |= {f"{n:,} of {of:,} of {name}": None} if n < of else {}
    return " and ".join(found)


def _worth(name: str, n: int, of: int) -> str:
    """Return how exact the gradient of a probe set is."""
    if name == HELD_OUT:
        return "a sample of D_A's template"
    return "the whole set: exact" if n == of else "a subsample"


def signed(value: float) -> str:
    """Format a cosine in six characters."""
    return "–" if np.isnan(value) else f"{value:+.3f}"


def with_interval(value: float, half: float) -> str:
    """Format a cosine with half of its interval, if there is one."""
    return signed(value) + ("" if np.isnan(half) else f" ± {half:.3f}")


def number(value: float) -> str:
    """Format a norm in at most seven characters; a secant, which has a sign, in eight."""
    if not math.isfinite(value):
        return "–"
    low, high = _PLAIN
    return f"{value:.3g}" if value == 0 or low <= abs(value) < high else f"{value:.1e}"
