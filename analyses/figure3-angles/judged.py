"""From the tables to the verdicts, by the rule that was written before the runs."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import false_discovery_control, ttest_1samp

from geomix.measures.intervals import t_interval
from geomix.studies.claims import Judged, judge, load_claims

SMALLEST = 0.05
"""A smaller turn is none worth the name."""

ENOUGH = 10
"""Paired seeds that a verdict needs."""

CLAIMS = {
    "1: random words in stage 1, cos(g_A, g_B)": (
        "D_B",
        "random-none",
        "none-none",
        "control-none",
    ),
    "2: prose in stage 2, cos(g_A, u)": ("update", "none-generic", "none-none", "none-control"),
}
"""Comparisons: the mixed arm, the plain one, the passage-free control."""

Values = dict[tuple[str, str, str, str, str], dict[int, float]]
"""(arm, moment, metric, one, other) → seed → cosine; `one` is D_A or held-out."""


def verdicts(folder: Path, seconds: Sequence[str]) -> str:
    """Judge the effects of `claims.yaml` by the plan's rule, and report the rest, as text."""
    judged = {(one.claim[:2], one.of): one for one in judge(folder, load_claims(folder))}
    lines: list[str] = []
    for name in CLAIMS:
        lines += [f"Claim {name}, at θ_A+4", ""]
        told: list[tuple[str, str]] = []
        for second in seconds:
            e, p, n = (judged[name[0] + effect, second] for effect in "EPN")
            told.append((_verdict(e, n), _verdict(p, None)))
            parts = [
                f"{k} {x.estimate:+.3f} ± {x.high - x.estimate:.3f}"
                for k, x in zip("EPN", (e, p, n), strict=True)
            ]
            lines.append(f"  {second}: {', '.join(parts)} (n = {e.n})")
            lines.append(f"    as the paper compares {told[-1][0]}; the passages {told[-1][1]}")
        for k, label in enumerate(("as the paper compares", "the passages")):
            found = [both[k] for both in told]
            one = found[0] if len(set(found)) == 1 else "mixed: " + ", ".join(found)
            lines.append(f"  {label}: {one}")
        lines.append("")
    for second in seconds:
        lines += [*_beside(second, folder), ""]
    return "\n".join(lines)


def _verdict(effect: Judged, beyond: Judged | None) -> str:
    if effect.n < ENOUGH:
        return f"undetermined (n = {effect.n})"
    if effect.low > 0 and (beyond is None or beyond.low > 0):
        return "supported"
    return "refuted" if effect.high < SMALLEST else "undetermined"


def _difference(
    values: Values, one: str, other: str, moment: str, metric: str, first: str, second: str
) -> np.ndarray:
    """Return the differences of two arms' cosines, seed by seed."""
    a = values[one, moment, metric, first, second]
    b = values[other, moment, metric, first, second]
    return np.array([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def _read(file: Path) -> Values:
    values: Values = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            pair = (row["first"], row["second_direction"])
            first, second = pair[::-1] if pair == ("D_B", "held-out") else pair
            key = (row["arm"], row["moment"], row["metric"], first, second)
            values[key][int(row["seed"])] = float(row["cosine"])
    return values


def _beside(second: str, folder: Path) -> Iterator[str]:
    """Yield the results without a verdict: other checkpoints, Adam's metric, layers, retention."""
    values = _read(folder / f"angles-{second}.csv")
    if (folder / f"adam-{second}.csv").exists():
        values |= _read(folder / f"adam-{second}.csv")
    yield f"{second}, reported beside (95 % intervals)"
    for name, (other, mixed, plain, control) in CLAIMS.items():
        moments = dict.fromkeys(
            (m, metric) for arm, m, metric, a, b in values if (arm, a, b) == (mixed, "D_A", other)
        )
        for moment, metric in moments:
            if (plain, moment, metric, "D_A", other) not in values:
                continue
            parts = []
            for label, base in (("E", plain), ("P", control)):
                if (base, moment, metric, "D_A", other) in values:
                    found = _difference(values, mixed, base, moment, metric, "D_A", other)
                    mean, half = t_interval(list(found))
                    parts.append(f"{label} {mean:+.3f} ± {half:.3f}")
            yield f"  {name[:1]}: {moment:6} {metric:9} {', '.join(parts)}"
        yield from _by_layer(folder / f"layers-{second}.csv", name, (other, mixed, plain))
    yield from _exact_match(folder / f"retention-{second}.csv")


def _by_layer(file: Path, name: str, claim: tuple[str, str, str]) -> Iterator[str]:
    other, mixed, plain = claim
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["second_direction"] == other and row["group"] != "all":
                found[row["arm"], row["group"]][int(row["seed"])] = float(row["cosine"])
    groups = list(dict.fromkeys(group for _, group in found))
    differences = [
        np.array([found[mixed, g][s] - found[plain, g][s] for s in sorted(found[plain, g])])
        for g in groups
    ]
    q = false_discovery_control([ttest_1samp(d, 0).pvalue for d in differences])
    cells = [
        f"{g} {d.mean():+.3f} (q {v:.2g})" for g, d, v in zip(groups, differences, q, strict=True)
    ]
    yield f"  {name[:1]}: by layer, E at θ_A+4 (Benjamini–Hochberg): {'; '.join(cells)}"


def _exact_match(file: Path) -> Iterator[str]:
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["stage"] == "1" and row["set"] in ("D_A", "D_B"):
                found[row["arm"], row["set"]][int(row["seed"])] = float(row["exact_match"])
    for arm in dict.fromkeys(arm for arm, _ in found):
        cells = []
        for name in ("D_A", "D_B"):
            mean, half = t_interval(list(found[arm, name].values()))
            cells.append(f"{name} {mean:.0f} ± {half:.0f} %")
        yield f"  exact match after stage 2, {arm:15} {', '.join(cells)}"
    yield "  D_A after stage 2, differences in points"
    for one, other in (("random-none", "control-none"), ("none-generic", "none-control")):
        a, b = found[one, "D_A"], found[other, "D_A"]
        mean, half = t_interval([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])
        yield f"    {one} − {other}: {mean:+.1f} ± {half:.1f}"
