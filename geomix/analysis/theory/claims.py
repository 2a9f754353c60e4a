"""The claims of the paper's theory, each computed from the tables of other analyses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from geomix.analysis.theory.lookup import (
    ALONE,
    by,
    column,
    floor_of,
    pairs,
    seeds_of,
    through,
    titles,
)
from geomix.analysis.theory.over_runs import condition, predictors
from geomix.analysis.theory.scores import SHARE, Rules, Score, scored, unmeasured
from geomix.analysis.theory.sources import Written, number
from geomix.config.names import MIXED
from geomix.measures.intervals import t_interval
from geomix.measures.verdict import Verdict

_FEW_DRAWS = 20


def scorecard(written: Written, rules: Rules) -> list[Score]:
    """Return every claim, in the order of the theory; also those that were not measured."""
    makers = (orders, parts, third_term, direction, angle, draws, definite, condition, predictors)
    found = [score for make in makers for score in make(written, rules)]
    return found + list(unmeasured_claims(written))


def _kept(*scores: Score | None) -> Iterator[Score]:
    return (score for score in scores if score is not None)


def orders(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge whether forgetting is first order at θ_A, and more than the displacement alone."""
    for arm, rows in by(written.rows("forgetting"), "arm"):
        first, change = column(rows, "first"), column(rows, "change")
        second = column(rows, "second")
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = [
                100 * float(np.mean(part / change)) for part in (second, change - first - second)
            ]
        needed = sorted({str(row.get("expansions_needed") or "–") for row in rows})
        beside = f"2nd {shares[0]:.0f} %, rest {shares[1]:.0f} %, N* {' … '.join(needed)}"
        yield from _kept(
            scored(
                f"{arm}: first order at the start has most of the forgetting",
                np.abs(first) - np.abs(change - first),
                rules,
                "forgetting",
                null=beside,
            ),
            scored(
                f"{arm}: forgetting is more than a permuted displacement's",
                change - column(rows, "null_change"),
                rules,
                "forgetting",
                null=f"permuted {float(np.mean(column(rows, 'null_change'))):+.3g}",
            ),
        )


def parts(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge Δ₁ ≈ 0, Δ₂ > 0 and Δ₃ ≈ 0."""
    for pair, gate in pairs(written):
        values = {key: seeds_of(written, pair, key) for key in ("Δ", "Δ₁", "Δ₂", "Δ₃")}
        total = float(np.mean(values["Δ"])) if len(values["Δ"]) else float("nan")
        for key, prediction in (("Δ", "> 0"), ("Δ₁", "≈ 0"), ("Δ₂", "> 0"), ("Δ₃", "≈ 0")):
            beside = f"Δ {total:+.3g}; {floor_of(written, key)}".strip("; ")
            yield from _kept(
                scored(
                    f"{pair}: {key} > 0",
                    values[key],
                    rules,
                    "delta2",
                    prediction=prediction,
                    null=beside,
                    gate=gate,
                )
            )


def third_term(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge claim (b), unless it shows only how far one arm was from convergence."""
    for pair, gate in pairs(written):
        third, cross = (seeds_of(written, pair, key) for key in ("s_A·s_B", "g_A·s_B"))
        other = seeds_of(written, pair, "g'_A·s_B")
        close = len(other) == len(cross) and len(cross) > 0
        degenerate = close and bool(np.any(np.abs(other) < 0.3 * np.abs(cross)))
        why = "degenerate: it says how far one arm was from convergence" if degenerate else ""
        unit = "nats² per weight²"
        yield from _kept(
            scored(
                f"{pair}: (b) third term s_A·s_B > 0",
                third,
                rules,
                "delta2/seeds",
                unit=unit,
                null=floor_of(written, "s_A·s_B"),
                gate=gate or why,
            )
        )


def direction(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge whether δ is a step along −g_M(θ_0), also between trainings in another order."""
    for pair, gate in pairs(written):
        key = "cos(δ, −g_M(θ_0))"
        known, base = (seeds_of(written, pair, k) for k in ("‖g_M(θ_0)‖", "‖g_A(θ_0)‖"))
        small = len(known) and len(known) == len(base) and bool(np.any(known < 0.05 * base))
        why = f"the base model knows {MIXED} already: its gradient is nothing" if small else ""
        values = seeds_of(written, pair, key)
        yield from _kept(
            scored(
                f"{pair}: δ is a step along −g_M(θ_0)",
                values,
                rules,
                "delta2/seeds",
                unit=SHARE,
                null=floor_of(written, key),
                gate=gate or why,
            )
        )


def angle(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge claim (e): the angle changes, not the norms; along the path and one step from θ_A."""
    for title, rows in by(
        written.rows("forgetting", "contrasts", partition="K", segment="sum"), "contrast"
    ):
        whole = [row for row in rows if row["form"] == "Shapley, nats" and not row["fails"]]
        stable = written.rows("forgetting", "contrasts", contrast=title, partition="both")
        turned = any(number(row, key) < 1 for row in stable for key in ("cosine", "norm"))
        gate = "a part's sign changes with half the segments" if turned else ""
        gate = ALONE if through(title, titles(written, "forgetting")) else gate
        values = column(whole, "cosine") - column(whole, "norm")
        norm = float(np.mean(column(whole, "norm"))) if whole else float("nan")
        beside = f"norm {norm:+.3g}"
        claim = f"{title}: (e) along the path the angle, not the norm"
        source = "forgetting/contrasts"
        yield from _kept(scored(claim, values, rules, source, null=beside, gate=gate))
    for pair, gate in pairs(written):
        of = [np.abs(seeds_of(written, pair, f"{key} part")) for key in ("angle", "norm")]
        if len(of[0]) != len(of[1]) or not len(of[0]):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = (of[0] - of[1]) / (of[0] + of[1])
        claim = f"{pair}: (e) one step from θ_A the angle, not the norm"
        yield from _kept(scored(claim, shares, rules, "delta2/seeds", unit=SHARE, gate=gate))


def draws(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge claim (a): the cross terms have mean 0 over draws of D_M, minus the prompt's mean."""
    found = by(written.rows("delta2", "draws"), "seed")
    means, apart, least = [], 0, 0
    for _, rows in found:
        beyond = column(rows, "T") - column(rows, "T_shuffled")
        if len(beyond) < 2:  # noqa: PLR2004
            continue
        mean, half = t_interval(beyond.tolist())
        means.append(mean)
        apart += abs(mean) > half
        least = min(least or len(beyond), len(beyond))
    few = f"{least} draws a seed; {_FEW_DRAWS} are wanted" if least < _FEW_DRAWS else ""
    yield from _kept(
        scored(
            "(a) cross terms have a mean above 0 over draws of D_M",
            means,
            rules,
            "delta2/draws",
            unit="nats³ per weight⁴",
            prediction="≈ 0",
            null=f"interval over draws excludes 0 in {apart} of {len(means)} seeds",
            gate=few,
        )
    )


def definite(written: Written, _: Rules) -> Iterator[Score]:
    """Judge (c) H_A and H_B, (d) their symmetrised product: positive semidefinite, by seed."""
    rows = [row for row in written.rows("curvature") if row.get("block") == "all"]
    keys = ("arm", "checkpoint", "matrix")
    rows.sort(key=lambda row: [str(row[key]) for key in keys])
    for (arm, at, matrix), group in groupby(rows, key=lambda row: tuple(row[key] for key in keys)):
        mine = list(group)
        states = [str(row["semidefinite"]) for row in mine]
        refuted, supported = states.count("refuted"), states.count("supported")
        verdict: Verdict = "undetermined"
        if refuted:  # one counterexample
            verdict = "refuted"
        elif supported == len(states):
            verdict = "supported"
        ends = [number(row, "smallest") for row in mine], [number(row, "largest") for row in mine]
        claim = f"{arm}: ({'d' if 'H_B H_A' in str(matrix) else 'c'}) {matrix} at {at} is PSD"
        yield Score(
            claim=claim,
            prediction="≥ 0",
            measured=float(np.mean(ends[0])),
            low=float(min(ends[0])),
            high=float(max(ends[0])),
            unit="smallest Ritz value",
            null=f"largest {float(np.mean(ends[1])):+.3g}",
            n=len(states),
            verdict=verdict,
            why=f"refuted by its bound in {refuted} of {len(states)} seeds",
            source="curvature",
        )


def unmeasured_claims(written: Written) -> Iterator[Score]:
    """Yield claims that need data which these runs lack."""
    for analysis in written.missing:
        why = f"not measured: geomix analyze {analysis} of these runs is missing"
        yield unmeasured(f"claims that need {analysis}", "", why, analysis)
    for stage, claim in (
        (1, "mixing at stage 1 helps most if D_M is unrelated to D_A and D_B"),
        (2, "mixing at stage 2 helps most if forgetting is severe and D_M aligns with D_A"),
    ):
        why = "needs a grid of runs: declare the contrast in a study's claims.yaml"
        yield unmeasured(f"§4.1, stage {stage}: {claim}", "> 0", why, "study")
