"""The answer of `geomix analyze relearn`, in at most 25 lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geomix.analysis.answer import MOST_ARMS, aligned, file_map, fitted, seeds_of, wrapped
from geomix.analysis.findings import Finding
from geomix.analysis.relearn import RATES, STEPS
from geomix.analysis.relearn.result import ANOTHER, Arm, Member, Relearn
from geomix.config.names import checkpoint_name
from geomix.measures.relearning import Savings
from geomix.runs.directory import RunDirectory

_MEANINGS = {
    "analysis/.txt": "all tables",
    "analysis/": "courses over the steps",
    "analysis/_facts": "every fact: kept, hidden, gone",
    "analysis/_": "states, whole, savings",
    "figures/": "recall and bits of the others",
}


def answer(
    result: Relearn,
    findings: Sequence[Finding],
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
) -> list[str]:
    """Return the question, the states of the facts, the courses, the verdict, and the files."""
    first = result.members[0]
    step, rate = first.named
    lines = wrapped(f"Are the facts of {result.name} that {result.end} has lost hidden or gone?")
    seeds = seeds_of(member.seed for member in result.members)
    lines += wrapped(
        f"{run.name}, {seeds}; {len(first.texts)} facts. Hidden: right at {result.start}, wrong at "
        f"{result.end}, right after {step} step{'s' * (step > 1)} on others at {rate:g} × the "
        "rate, in half of the draws."
    )
    lines += ["", *_facts(result), ""]
    shown = next((arm for arm in result.arms if any(m.courses for m in arm.members)), None)
    if shown is not None:
        lines += [*_course(result, shown), ""]
    lines += wrapped(_verdict(findings[0]))
    if why := first.lacking.get(ANOTHER):
        lines += wrapped(f"Null of another {result.name}: not measured; {why}.")
    return fitted(lines, file_map(run, files, stem, _MEANINGS))


def _facts(result: Relearn) -> list[str]:
    """Return a line an arm: facts by state, hidden ones by chance, and the savings."""
    rows = [["", "kept", "hidden", "gone", "not learnt", "by chance", "savings", "net"]]
    for arm in result.arms[:MOST_ARMS]:
        states = [state for m in arm.members for state in m.states(result.name)]
        counts = [str(states.count(one)) for one in ("kept", "hidden", "gone", "not learnt")]
        chance = [_chance(member, result.name) for member in arm.members if member.courses]
        percent = f"{np.mean(chance):.0f} %" if chance else "–"
        saved = [member.saved(result.name) for member in arm.members]
        cells = [_saved([one[key][0] for one in saved if key in one]) for key in ("savings", "net")]
        rows.append([arm.label, *counts, percent, *cells])
    return aligned(rows)


def _chance(member: Member, name: str) -> float:
    """Return the largest share that a null has called hidden, percent."""
    return max(member.called_hidden(kind) for kind in member.kinds if kind != name)


def _saved(found: Sequence[Savings]) -> str:
    """Return the mean over seeds, or the bound of the first that has one."""
    bounds = [one for one in found if one.bound]
    values = [one.value for one in found if not one.bound and not np.isnan(one.value)]
    if bounds:
        return str(bounds[0])
    return str(Savings(float(np.mean(values)))) if values else "–"


def _course(result: Relearn, arm: Arm) -> list[str]:
    """Return a line for each kind of cues: lost facts that are right again, after each step."""
    members = [member for member in arm.members if member.courses]
    cues, lost = int(members[0].courses[0].cues.sum()), int(members[0].lost.sum())
    head = (
        f"{arm.label}: cues are {cues} of {lost} lost facts; others right (%) by steps, rate × "
        f"{RATES[0]:g} | {RATES[1]:g}:"
    )
    rows = [["cues", *map(str, STEPS), "|", *map(str, STEPS)]]
    for kind in _kinds(members):
        cells = [_recovered(members, kind, step, rate) for rate in RATES for step in STEPS]
        rows.append([_named(kind, result), *cells[: len(STEPS)], "|", *cells[len(STEPS) :]])
    return [*wrapped(head), *aligned(rows), *_beside(result, members)]


def _kinds(members: Sequence[Member]) -> list[str]:
    return list(dict.fromkeys(kind for member in members for kind in member.kinds))


def _named(kind: str, result: Relearn) -> str:
    return f"{kind} {result.name}" if kind == ANOTHER else kind


def _recovered(members: Sequence[Member], kind: str, step: int, rate: float) -> str:
    found = [m.recovered(kind, step, rate) for m in members if m.of(kind, rate)]
    return f"{np.mean(found):.0f}"


def _beside(result: Relearn, members: Sequence[Member]) -> list[str]:
    """Return bits of the lost facts, and what became of the kept ones, at the named step."""
    step, rate = members[0].named
    bits: dict[str, tuple[float, float]] = {}
    kept = []
    for kind in _kinds(members):
        pairs = [(one, m) for m in members for one in m.of(kind, rate)]
        at = list(pairs[0][0].steps).index(step)
        each = [one.mean_bits(m.lost) for one, m in pairs]
        bits[_named(kind, result)] = (
            float(np.mean([values[0] for values in each])),
            float(np.mean([values[at] for values in each])),
        )
        there = [one.share(m.kept)[at] for one, m in pairs if m.kept.any()]
        if there and _from_end(kind):
            kept.append(f"{kind} {np.mean(there):.0f}")
    before, after = bits.pop(result.name)
    best = max(bits, key=lambda kind: bits[kind][1])
    unit = "bits" if all(member.known for member in members) else "log2 p"
    said = (
        f"Their {unit}: {_one(before)} at {result.end}, {_one(after)} after step {step}; best null "
        f"{_one(bits[best][1])} ({best})."
    )
    lines = wrapped(said)
    return lines + (wrapped(f"Kept facts still right (%): {', '.join(kept)}.") if kept else [])


def _one(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _verdict(lead: Finding) -> str:
    """Return the first finding in short: the table has its parts."""
    arm = lead.claim.split(":")[0]
    if not lead.n:
        return f"{arm}: {lead.sentence}"
    _, _, why = lead.sentence.partition("No verdict: ")
    known = not np.isnan(lead.low)
    ends = f" [{_points(lead.low)}, {_points(lead.high)}]" if known else ""
    said = f"{arm}: {_points(lead.estimate)}{ends} points beyond the best null: {lead.verdict}"
    return f"{said}; {why}" if why else f"{said}."


def _from_end(kind: str) -> bool:
    """Return whether a course begins with the last checkpoint, which alone has kept facts."""
    return kind not in (ANOTHER, checkpoint_name(0))


def _points(value: float) -> str:
    return f"{round(value):+d}".replace("-", "−")
