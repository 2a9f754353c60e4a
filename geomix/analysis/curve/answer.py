"""The answer of `geomix analyze curve`, in at most 25 lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geomix.analysis.answer import MOST_ARMS, aligned, file_map, fitted, seeds_of, wrapped
from geomix.analysis.curve.findings import rival
from geomix.analysis.curve.result import Arm, Course, Curve, Fitted
from geomix.analysis.curve.tables import gap_rows
from geomix.analysis.findings import Finding
from geomix.measures.law_choice import Interval
from geomix.runs.directory import RunDirectory

_MOST_LAWS = 6
"""Rows of the table of laws; the files have all."""

_SHORT = {"power": "power", "exponential": "exp", "logarithm": "log"}

_MEANINGS = {
    "analysis/.txt": "all tables",
    "analysis/": "laws",
    "analysis/_": "points, gap, worst_case",
    "figures/": "retention and its laws",
}


def answer(
    result: Curve,
    findings: Sequence[Finding],
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
) -> list[str]:
    """Return the question, the dips, the laws, the verdict, and the files."""
    first = result.arms[0].courses
    lines = wrapped(
        f"What is left of {result.name} after its own stage, and by which law does it fade?"
    )
    seeds = seeds_of(course.seed for arm in result.arms for course in arm.courses)
    lines += wrapped(
        f"{run.name}, {seeds}; {first[0].facts} facts, {len(first[0].steps) - 1} evaluations after "
        f"{result.start}{_over(first[0])}, {_apart(result)}"
    )
    lines += ["", *_dips(result), "", *_laws(result)]
    if any(one.choice is not None for arm in result.arms for one in arm.fitted):
        lines += [
            "",
            *wrapped(
                "R is the share left of the log-probability that was added; + c: a share c stays. "
                "Error: of R. Rival: best law of another family, and its AICc behind."
            ),
        ]
        if len(first) == 1:
            lines += wrapped("One seed: intervals are of the noise about its curve, not of seeds.")
    lead = [finding for finding in findings if "law" in finding.claim][:1]
    for finding in lead:
        lines += wrapped(f"{finding.claim.split(':')[0]}: {finding.verdict}. {finding.sentence}")
    return fitted(lines, file_map(run, files, stem, _MEANINGS))


def _over(course: Course) -> str:
    """Return in how many later stages the evaluations lie, if these are several."""
    stages = len(set(course.stages[1:]))
    return f" in {stages} stages" if stages > 1 else ""


def _apart(result: Curve) -> str:
    widest = max(row["widest"] for row in gap_rows(result))
    return f"at most {widest} step{'s' * (widest > 1)} apart"


def _dips(result: Curve) -> list[str]:
    """Return a line an arm: each score at the end of the stage, at its lowest, and at last."""
    rows = gap_rows(result)
    known = dict.fromkeys(row["score"] for row in rows)
    second = "bits" if "bits" in known else "log_probability"
    head = {"exact_match": "exact %", "bits": "bits", "log_probability": "ln p"}
    table = [["", *(w for s in ("exact_match", second) for w in (head[s], "lowest", "at", "last"))]]
    for arm in result.arms[:MOST_ARMS]:
        cells = []
        for score in ("exact_match", second):
            mine = [row for row in rows if (row["arm"], row["score"]) == (arm.label, score)]
            start, lowest, final = (
                float(np.mean([row[key] for row in mine])) for key in ("start", "lowest", "final")
            )
            ats = sorted({row["at"] for row in mine})
            at = f"{ats[0]}" if len(ats) == 1 else f"{ats[0]}–{ats[-1]}"
            cells += [_one(start), _one(lowest), at, _one(final)]
        table.append([arm.label, *cells])
    return aligned(table)


def _one(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _laws(result: Curve) -> list[str]:
    """Return a line an arm and axis: the best law, τ, its error, the rival, and the refits."""
    pairs = [(arm, arm.fitted[i]) for i in range(len(result.arms[0].fitted)) for arm in result.arms]
    table = [["", "against", "best law", "τ", "error", "rival", "refits"]]
    without: dict[str, list[str]] = {}
    for arm, one in pairs:
        if one.choice is None or one.choice.best is None:
            why = one.why or f"all are {_lead_reason(one)}"
            without.setdefault(f"{one.axis}: {why}", []).append(arm.label)
        else:
            table.append(_law(arm, one))
    more = len(table) - 1 - _MOST_LAWS
    lines = aligned(table[: 1 + _MOST_LAWS]) if len(table) > 1 else []
    lines += [f"… and {more} more in the files"] if more > 0 else []
    for why, arms in without.items():
        whose = "" if len(arms) == len(result.arms) else f" ({', '.join(arms[:MOST_ARMS])})"
        lines += wrapped(f"No law against {why}{whose}.")
    return lines


def _lead_reason(one: Fitted) -> str:
    """Return why the law of the lowest AICc is rejected."""
    assert one.choice is not None
    return min(one.choice.candidates, key=lambda law: law.aicc).state


def _law(arm: Arm, one: Fitted) -> list[str]:
    assert one.choice is not None
    assert one.choice.best is not None
    best, other = one.choice.best, rival(one.choice)
    beside = f"{_SHORT[other.law.family]} +{other.behind:.1f}" if other else "–"
    law = _SHORT[best.law.family] + " + c" * best.law.floor
    share, error = f"{100 * one.choice.family:.0f} %", f"{best.error:.3f}"
    return [arm.label, one.axis, law, _interval(best.tau), error, beside, share]


def _interval(found: Interval) -> str:
    value, low, high = map(_rounded, found)
    return value if math.isnan(found[1]) else f"{value} [{low}, {high}]"


def _rounded(value: float) -> str:
    """Return two or three digits, thousands as `14k`."""
    if math.isnan(value):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g}{letter}"
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004
