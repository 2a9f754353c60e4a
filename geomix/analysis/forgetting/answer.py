"""The answer of `geomix analyze forgetting`, in at most 25 lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geomix.analysis.answer import MOST_ARMS, aligned, file_map, fitted, seeds_of, wrapped
from geomix.analysis.findings import Finding
from geomix.analysis.forgetting.measure import null_mean
from geomix.analysis.forgetting.result import Arm, Contrast, Forgetting, PathPair
from geomix.measures.expansions import needed_text
from geomix.measures.intervals import over_seeds
from geomix.measures.path_factors import FACTORS, signs_agree
from geomix.runs.directory import RunDirectory

_MOST_CONTRASTS = 3

_MEANINGS = {
    "analysis/.txt": "all tables",
    "analysis/_segments": "norm, cosine and length by segment",
    "analysis/_contrasts": "their part in each difference",
    "analysis/_groups": "the same by layer or module",
    "analysis/_sharpness": "critical and tolerance steps",
    "analysis/": "orders, reaches, expansions, null",
    "figures/_reach": "the loss and its local models",
    "figures/_factors": "norm, cosine and length by segment",
}


def answer(
    result: Forgetting,
    findings: Sequence[Finding],
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
    full: bool,
) -> list[str]:
    """Return the question, the orders and their reach, the contrasts, and the files."""
    first = result.arms[0].members[0]
    lines = wrapped(
        f"How did {result.title} change the loss of {result.name}, and how far do models hold?"
    )
    seeds = seeds_of(result.seeds)
    head = f"{Path(first.run).name}, {seeds}; {first.counted}, {first.reduction} loss"
    lines += wrapped(head)[:2]
    if len(result.seeds) == 1:
        lines.append("No interval: one seed; nothing is claimed beyond this run.")
    lines += ["", *_orders(result), ""]
    for contrast in result.contrasts[:_MOST_CONTRASTS]:
        lines += _contrast(result, contrast)
    if result.without_path:
        lines += wrapped(
            f"No path: {', '.join(result.without_path)} segments kept, 4 belong "
            "(record.weights: true)."
        )
    lines += _sharpness(result)
    lines += wrapped(_verdict(findings))
    lines += [] if full else ["All tables: the same command with --full."]
    return fitted(lines, file_map(run, files, stem, _MEANINGS))


def _orders(result: Forgetting) -> list[str]:
    """Return a line an arm: the change, its orders, the Hessian's reach, N*, the null."""
    rows = [["", "change", "1st", "2nd", "rest", "Hessian to", "N*", "permuted"]]
    for arm in result.arms[:MOST_ARMS]:
        changes = [member.real.change for member in arm.members]
        mean, half = over_seeds(changes)
        change = f"{mean:+.3f}" + (f" ± {half:.2g}" if np.isfinite(half) else "")
        shares = [
            _percent([part / m.real.change if m.real.change else np.nan for part, m in parts])
            for parts in (
                [(m.real.first, m) for m in arm.members],
                [(m.real.second, m) for m in arm.members],
                [(m.real.rest, m) for m in arm.members],
            )
        ]
        null = float(np.mean([null_mean(member)[0] for member in arm.members]))
        permuted = f"{null:+.3f}" if np.isfinite(null) else "–"
        rows.append([arm.label, change, *shares, _reach(arm), _needed(arm), permuted])
    return aligned(rows)


def _percent(values: Sequence[float]) -> str:
    mean = float(np.mean(values))
    return f"{100 * mean:.0f} %".replace("-", "−") if np.isfinite(mean) else "–"


def _reach(arm: Arm) -> str:
    """Return the Hessian's reach; for several seeds the smallest and the largest."""
    return _range([member.real.reach("Hessian").text for member in arm.members])


def _needed(arm: Arm) -> str:
    return _range([needed_text(m.levels) if m.levels else "–" for m in arm.members])


def _range(texts: Sequence[str]) -> str:
    found = sorted(set(texts), key=lambda text: (text[:1].isalpha(), _number(text)))
    return found[0] if len(found) == 1 else f"{found[0]} … {found[-1]}"


def _number(text: str) -> float:
    known = text.lstrip("<> ")
    try:
        return float(known)
    except ValueError:
        return float("nan")


def _contrast(result: Forgetting, contrast: Contrast) -> list[str]:
    """Return the difference between two arms and its factors, or why there are none."""
    if not contrast.pairs:
        return []
    mean, half = over_seeds(contrast.differences)
    spread = f" ± {half:.2g}" if np.isfinite(half) else ""
    head = f"{contrast.title}: {contrast.arm.label} forgot {less(mean)}{spread}"
    pairs = contrast.paths(result.index)
    kept = [pair for pair in pairs if not pair.fails]
    if not kept:
        why = f"path dropped: {pairs[0].fails}" if pairs else "no path"
        return wrapped(f"{head}; {why}.")
    lines = wrapped(f"{head}, {_shapley(kept)} (Shapley, {len(kept[0].fine.ratios)} segments).")
    main = _main(contrast, kept[0])
    return lines + (wrapped(f"  {main}") if main and len(kept) == 1 else [])


def less(difference: float) -> str:
    """Return `0.184 nats less`, for a reference that forgot more than an arm."""
    return f"{abs(difference):.3f} nats {'less' if difference >= 0 else 'more'}"


def _shapley(pairs: Sequence[PathPair]) -> str:
    parts = np.mean([pair.fine.parts for pair in pairs], axis=0)
    stable = np.all([signs_agree(p.fine.parts, p.coarse.parts) for p in pairs], axis=0)
    texts = [
        f"{name} {value:+.3f}{'' if kept else '?'}".replace("-", "−")
        for name, value, kept in zip(FACTORS, parts, stable, strict=True)
    ]
    return "of which " + ", ".join(texts)


def _main(contrast: Contrast, pair: PathPair) -> str:
    """Return the segment in which the reference forgets most, as exact logarithms of ratios."""
    one = next(one for one, _ in contrast.pairs if one.seed == pair.seed)
    assert one.path is not None
    integral = one.path.fine.factors.integral
    k = int(np.argmax(integral))
    if not pair.fine.ratios[k]:
        return ""
    logs = pair.fine.logs[k]
    parts = ", ".join(
        f"{name} {value:+.2f}".replace("-", "−") for name, value in zip(FACTORS, logs, strict=True)
    )
    where = f"θ_{one.names[k]} to θ_{one.names[k + 1]}"
    return f"largest segment, {where}: ln ratio {float(logs.sum()):+.2f} = {parts}"


def _sharpness(result: Forgetting) -> list[str]:
    """Return how often the relative critical sharpness is defined, and the first tolerance step."""
    rows = [
        one
        for arm in result.arms
        for member in arm.members
        for one in member.sharpness
        if one.name == result.name
    ]
    if not rows:
        return []
    states = [one.critical.state for one in rows]
    first = result.arms[0].members[0].sharpness
    start = next(one for one in first if one.name == result.name)
    step = "step" if start.steps == 1 else f"segment of {start.steps} steps"
    if start.tolerance.state == "defined":
        reached = f"{start.tolerance.step:.2g} × the first {step} costs it 0.01 nats"
    else:
        reached = f"the first {step} costs it 0.01 nats: {start.tolerance.text}"
    return wrapped(
        f"Critical sharpness of {result.name} along recorded segments: defined at "
        f"{states.count('defined')} of {len(rows)} starts, conflict at {states.count('conflict')}; "
        f"{result.arms[0].label}: {reached}."
    )


def _verdict(findings: Sequence[Finding]) -> str:
    lead = findings[0]
    return f"Verdict: {lead.claim}: {lead.verdict}. {lead.sentence}"
