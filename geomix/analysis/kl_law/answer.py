"""The answer of `geomix analyze kl-law`, in at most 25 lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geomix.analysis.answer import MOST_ARMS, aligned, file_map, fitted, seeds_of, wrapped
from geomix.analysis.findings import Finding
from geomix.analysis.kl_law.result import START, Key, KLLaw
from geomix.analysis.kl_law.tables import SHOWN
from geomix.runs.directory import RunDirectory

_MEANINGS = {
    "analysis/.txt": "all tables",
    "analysis/": "points: an arm, a seed, a stage",
    "analysis/_divergences": "every set, both directions",
    "analysis/_": "fits, comparisons",
    "figures/": "forgetting against each predictor",
}

_FORMS = {"linear": "a·x", "quadratic": "a·x + b·x²", "root": "a·√x"}

_LARGE = 100

_WHOSE = {"both": "arms and seeds", "arms": "arms", "seeds": "seeds"}


def answer(
    result: KLLaw,
    findings: Sequence[Finding],
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
) -> list[str]:
    """Return the question, the arms, the fits, the verdict, and the files."""
    keys = [key for key in SHOWN if key in result.keys]
    lines = wrapped(
        f"Does the KL divergence on the new task predict how much of {result.name} is forgotten?"
    )
    seeds = seeds_of(point.seed for point in result.points)
    count = len(result.points)
    lines += wrapped(
        f"{run.name}, {seeds}; {count} point{'s' * (count > 1)}, each an arm, a seed and a stage. "
        "KL: forward, to the stage's start, nats a token."
    )
    lines += ["", *_arms(result, keys), ""]
    if result.lacking:
        lines += wrapped(f"No law is fitted: {result.lacking}.")
    elif not findings:
        lines += wrapped(f"No law is fitted: all points forgot as much of {result.name}.")
    else:
        own = Key(result.name, START, keys[0].direction)
        lines += [*_fits(result, [*keys, own] if own in result.keys else keys), ""]
        lines += wrapped(
            f"R² out of sample: {_FORMS[result.form]}, each point predicted from other "
            f"{_WHOSE[result.leave]}; 0 is their mean. Null: median of permuted "
            f"{'arms' if result.blocks else 'points'}. Interval over {result.unit}."
        )
        lines += wrapped(_verdict(findings[0]))
    return fitted(lines, file_map(run, files, stem, _MEANINGS))


def _arms(result: KLLaw, keys: Sequence[Key]) -> list[str]:
    """Return a line an arm: what it forgot, and its predictors, means over its points."""
    rows = [["", "nats", "bits", "exact", *map(result.named, keys)]]
    for arm in result.arms[:MOST_ARMS]:
        mine = [i for i, point in enumerate(result.points) if point.arm == arm]
        lost = [result.points[i].forgotten for i in mine]
        nats, exact = (float(np.mean([one[key] for one in lost])) for key in lost[0])
        values = [f"{np.mean(result.values(key)[mine]):.3g}" for key in keys]
        cells = [_one(nats), _one(nats / math.log(2)), _one(exact)]
        rows.append([arm, *cells, *values])
    more = len(result.arms) - MOST_ARMS
    head = wrapped(
        f"{result.name} forgotten, of {result.examples} facts: nats and bits an answer, points of "
        "exact match."
    )
    return [*head, *aligned(rows), *([f"… and {more} more in the files"] if more > 0 else [])]


def _one(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _fits(result: KLLaw, keys: Sequence[Key]) -> list[str]:
    """Return a line a predictor: R² with its interval, its null, and that of exact match."""
    rows = [["predictor", "R² of nats", "", "null", "p", "R² of exact"]]
    for key in keys:
        fit, exact = result.fit(key), result.fit(key, "exact_match")
        if fit is None:
            continue
        mean, low, high = fit.interval(result.units)
        interval = "" if math.isnan(low) else f"[{_two(low)}, {_two(high)}]"
        other = "–" if exact is None else _two(exact.skill)
        null = _two(float(np.median(fit.null)))
        name = result.named(key) + " *" * (not result.is_rival(key))
        rows.append([name, _two(mean), interval, null, f"{fit.p:.2g}", other])
    star = any(not result.is_rival(key) for key in keys)
    return [*aligned(rows), *(["* no rival: it is nearly what is predicted"] if star else [])]


def _two(value: float) -> str:
    large = abs(value) >= _LARGE  # of a fit that leaves its data
    return (f"{value:.0e}" if large else f"{value:.2f}").replace("-", "−")


def _verdict(lead: Finding) -> str:
    """Return the first finding in short: the table has its parts."""
    _, _, why = lead.sentence.partition("No verdict: ")
    known = not math.isnan(lead.low)
    ends = f" [{lead.low:+.2f}, {lead.high:+.2f}]" if known else ""
    said = f"{lead.claim}: by {lead.estimate:+.2f}{ends} of R²".replace("-", "−")
    said = f"{said}: {lead.verdict}"
    return f"{said}; {why}" if why else f"{said}."
