"""The answer of `geomix analyze grad-angle`: do both sets conflict?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geomix.analysis.answer import (
    MOST_ARMS,
    aligned,
    file_map,
    fitted,
    names_of,
    seeds_of,
    shortened,
    wrapped,
)
from geomix.analysis.directions import HELD_OUT
from geomix.analysis.findings import Finding
from geomix.analysis.grad_angle.contrasts import contrasts, has_secants
from geomix.analysis.grad_angle.notes import (
    conflict,
    no_null_of,
    number,
    shares_probed,
    signed,
)
from geomix.analysis.grad_angle.pair import gradient, preferred
from geomix.analysis.grad_angle.result import ArmAngles, GradAngle
from geomix.config.stage_names import stage_title
from geomix.measures.cosine import norms
from geomix.measures.intervals import over_seeds
from geomix.runs.directory import RunDirectory

_START = "θ_0"

_MOST_CAVEATS = 2

_FEW = 20
"""Examples of a held-out set below which it is a weak null."""

_WIDE = "±>1"
"""Marker of an interval that is uninformative."""

_DOWN = {
    "euclidean": "a small step down {}'s gradient",
    "adam": "a small Adam step on {} (v̂ fixed, no momentum)",
}
"""Step on the second set whose first-order effect on the first set's loss has the sign of minus the
cosine, by metric."""


def answer(result: GradAngle, run: RunDirectory, files: Sequence[Path]) -> list[str]:
    """Return the question, the cosines, the verdict and the files, in at most 25 lines.

    Args:
        result: the angles.
        run: whose folder holds the files.
        files: all that were written.
    """
    label = decisive(result)
    table = list(_table(result, label))
    parts = [
        [f"Do the gradients of {' and '.join(result.pair.names)} conflict?"],
        [*_asked(result, label), ""],
        [*aligned(table), *_more(result), *_wide(result, table), ""],
        [*_verdicts(result, label), *_meaning(result), *_caveats(result)],
    ]
    return fitted(
        [line for part in parts for line in part], file_map(run, files, *_meanings(result))
    )


def decisive(result: GradAngle) -> str:
    """Return the decisive checkpoint: the first recorded step after θ_A, else θ_A, else the first.

    If the sets meet in a later stage, θ_A is the checkpoint that this stage starts from. If arms
    differ, it is the first checkpoint that most of them have.
    """
    checkpoints = {m.label: m for arm in reversed(result.arms) for m in arm.checkpoints}
    shared = {label: sum(label in arm.labels for arm in result.arms) for label in checkpoints}
    return min(
        checkpoints, key=lambda label: (-shared[label], *preferred(checkpoints[label], result.pair))
    )


def _asked(result: GradAngle, label: str) -> list[str]:
    checkpoint = next(m for arm in result.arms for m in arm.checkpoints if m.label == label)
    when = f"at {label}"
    if checkpoint.step and not checkpoint.end:
        when += f" (step {checkpoint.step} of {stage_title(checkpoint.stage)})"
    runs = result.run if len(result.runs) == 1 else f"{len(result.runs)} runs"
    metric = "Adam's metric, " if result.metric == "adam" else ""
    seeds = seeds_of(seed for arm in result.arms for seed in arm.seeds)
    return wrapped(f"{runs}, {seeds}: cosines of the whole model, {metric}{when}")


def _table(result: GradAngle, label: str) -> Iterator[list[str]]:
    """Yield a header and a row an arm: both cosines, the null, the first arm, and |g_A|."""
    base = result.arms[0]
    begun = label != _START and any(_START in arm.labels for arm in result.arms)
    several = len(result.arms) > 1
    pair = result.pair
    both, null = ", ".join(pair.gradients), pair.null
    heads = [(both, f"at {label}")]
    heads += [(both, f"at {_START}")] * begun
    if null is not None:
        held = [name if name == HELD_OUT else gradient(name) for name in null]
        heads += [(f"{held[0]},", held[1])]
    heads += [("difference", f"from {shortened(base.arm, 6)}")] * several
    heads += [(f"|{pair.gradients[0]}|, times", f"that at {_START}")] * begun
    yield ["", *(head for head, _ in heads)]
    yield ["", *(head for _, head in heads)]
    here = (label, pair.second)
    differences = {c.arm: c for c in contrasts(result) if (c.moment, c.second) == here}
    for arm in result.arms[:MOST_ARMS]:
        cells = [_cosine(arm, label, pair.names)]
        cells += [_cosine(arm, _START, pair.names)] * begun
        cells += [] if null is None else [_cosine(arm, label, null)]
        if several:
            one = differences.get(arm.arm)
            cells += ["–" if one is None else _number(one.difference, one.half_width)]
        cells += [_share(arm, label, pair.first)] * begun
        yield [arm.arm, *cells]


def _cosine(arm: ArmAngles, label: str, names: tuple[str, str]) -> str:
    if label not in arm.labels:
        return "–"
    return _number(*over_seeds(arm.cosine(label, *names)))


def _number(mean: float, half: float) -> str:
    """Format a cosine with half of its interval, in eleven cells."""
    if half > 1:
        return signed(mean) + _WIDE
    return signed(mean) + ("" if np.isnan(half) else f"±{half:.3f}".replace("±0.", "±."))


def _share(arm: ArmAngles, label: str, name: str) -> str:
    """Return |g| of a set at a checkpoint over |g| at θ_0, mean over seeds."""
    if label not in arm.labels or _START not in arm.labels:
        return "–"
    lengths = norms(arm.inner.sum(axis=2))[:, :, arm.directions.index(name)]
    here, start = (lengths[:, arm.labels.index(one)] for one in (label, _START))
    with np.errstate(divide="ignore", invalid="ignore"):
        return number(float((here / start).mean()))


def _wide(result: GradAngle, table: Sequence[Sequence[str]]) -> list[str]:
    """Explain intervals that are wider than the range of a cosine, if there are any."""
    n = max(len(arm.seeds) for arm in result.arms)
    wide = any(_WIDE in cell for row in table for cell in row)
    why = f"{_WIDE}: a 95 % interval wider than any cosine; {n} seeds say little of their spread."
    return wrapped(why) if wide else []


def _more(result: GradAngle) -> list[str]:
    left = len(result.arms) - MOST_ARMS
    return [f"… and {left} more arms, in the files"] if left > 0 else []


def _verdicts(result: GradAngle, label: str) -> Iterator[str]:
    """Yield the verdicts; arms with the same one are grouped."""
    base, others = result.arms[0], [arm.arm for arm in result.arms[1:]]
    counts = {arm.arm: len(arm.seeds) for arm in result.arms}
    rule, n = result.rule, max(counts.values())
    if n < rule.planned:
        few = "one seed gives no interval" if n == 1 else f"there are {n} seeds"
        whether = "whether they conflict"
        changes = "change" if len(others) > 1 else "changes"
        whether += f", and whether {names_of(others)} {changes} that" if others else ""
        yield from wrapped(
            f"Verdict: undetermined {whether}: {few}, and a verdict needs {rule.planned} seeds "
            "of each arm (`geomix sweep` trains them; name all their runs here)."
        )
        return
    by_text: dict[str, list[str]] = {}
    for arm in result.arms:
        by_text.setdefault(conflict(arm, label, rule, result.pair)[1], []).append(
            f"{arm.arm} (n = {counts[arm.arm]})"
        )
    for text, arms in by_text.items():
        yield from wrapped(f"Verdict, {names_of(arms)}: {text}.")
    turned: dict[str, list[str]] = {}
    for c in contrasts(result):
        if (c.moment, c.second) == (label, result.pair.second):
            turned.setdefault(c.verdict, []).append(f"{c.arm} (n = {c.n})")
    listed = "; ".join(f"{verdict} in {names_of(arms)}" for verdict, arms in turned.items())
    if listed:
        beyond = "" if result.pair.null is None else ", beyond held-out's"
        yield from wrapped(f"A smaller angle than in {base.arm}{beyond}: {listed}.")


def findings(result: GradAngle) -> list[Finding]:
    """Judge whether the gradients of the pair conflict at the decisive checkpoint, by arm."""
    label, pair = decisive(result), result.pair
    found = []
    for arm in result.arms:
        if label not in arm.labels:
            continue
        mean, half = over_seeds(arm.cosine(label, *pair.names))
        judged, sentence = conflict(arm, label, result.rule, pair)
        claim = f"{arm.arm}: −cos({', '.join(pair.gradients)}) > 0 at {label}"
        ends = (-mean - half, -mean + half)
        found.append(Finding(claim, -mean, *ends, "1", len(arm.seeds), judged, f"{sentence}."))
    return found


def _meaning(result: GradAngle) -> list[str]:
    pair = result.pair
    there = HELD_OUT in result.directions and pair.null is not None
    null = " held-out, unseen facts like D_A's, is what it is read against." if there else ""
    step = _DOWN[result.metric].format(pair.second)
    secants = ": --full prints the secants" if has_secants(result) else ""
    return wrapped(
        f"A negative cosine: to first order, {step} raises {pair.first}'s loss; a positive one: it "
        f"lowers it.{null} Where |{pair.gradients[0]}| is near 0, the first order says little"
        f"{secants}."
    )


def _caveats(result: GradAngle) -> Iterator[str]:
    """Yield the limits of these numbers; the notes have all of them."""
    found = []
    if result.pair.null is None:
        found.append(no_null_of(result.pair))
    elif HELD_OUT not in result.directions:
        found.append(
            "No held-out set was recorded, so there is nothing to read the cosine against."
        )
    held_out = [arm.probes[HELD_OUT][0] for arm in result.arms if HELD_OUT in arm.probes]
    if held_out and min(held_out) < _FEW and result.pair.null is not None:
        n = min(held_out)
        found.append(f"held-out: {n} example{'s' * (n != 1)} only, a weak null.")
    if parts := shares_probed(result, result.pair.names):
        found.append(f"Probed were {parts}: the noise of a sample pulls a cosine towards 0.")
    found += [f"No snapshots yet: {names_of(result.missing)}."] if result.missing else []
    found += result.remarks
    for text in found[:_MOST_CAVEATS]:
        yield from wrapped(shortened(text, 150))
    if len(found) > _MOST_CAVEATS:
        yield f"… and {len(found) - _MOST_CAVEATS} more remarks, in the files"


def _meanings(result: GradAngle) -> tuple[str, dict[str, str]]:
    """Return the stem of the files, and the contents by suffix."""
    depth = "depth" if result.by == "parameter" else result.by
    one, other = result.pair.gradients
    return result.stem, {
        "analysis/.txt": "all tables and notes, as --full prints",
        "analysis/": "all numbers",
        "analysis/_conflicts": "pairs of examples that conflict most",
        "figures/": f"cosines and norms by {depth}",
        "figures/_row": f"cos({one}, {other}) by layer, for a column",
        "figures/_plane": f"the plane of {one} and {other}",
        "figures/_layer_module": "layers by modules",
        "figures/_along": "cosines along training",
        "figures/_pairs": "cosines of single examples",
    }
