"""Claims over runs: predictors of forgetting, and the stage-2 condition as one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from geomix.analysis.theory.lookup import column, through, titles
from geomix.analysis.theory.scores import Rules, Score
from geomix.analysis.theory.sources import Row, Written, number
from geomix.config.names import role_of
from geomix.measures.prediction import rank_correlation, sign_agreement

_PREDICTORS = (
    ("reach_hessian_length", "a shorter reach of the Hessian's model", -1),
    ("curvature", "a larger curvature along the displacement", 1),
    ("length", "a longer displacement", 1),
    ("first", "a larger first-order term at the start", 1),
    ("second", "a larger second-order term at the start", 1),
)
"""Columns of `forgetting`, their meaning, and the sign that goes with more forgetting."""


def condition(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge, run by run, whether the stage-2 condition's sign agrees with less forgetting.

    Only arms whose stage 2 trains on one D_M count: the condition is about no others.
    """
    mixed = [
        row
        for row in written.rows("delta2", "condition")
        if role_of(str(row["in_place"])) == "mixed" and row.get("trained")
    ]
    sets = {(row["arm"], row["in_place"]) for row in mixed}
    rows = [row for row in mixed if sum(arm == row["arm"] for arm, _ in sets) == 1]
    if not rows:
        return
    for name, chosen in (("at θ_A", _first_of(rows)), ("at most checkpoints", _middle_of(rows))):
        for by_size in (False, True):
            pairs = [
                (margin, number(delta, "value"))
                for (arm, seed), (margin, sized) in chosen.items()
                for delta in _measured(written, arm, seed)
                if by_size or not sized
            ]
            found = sign_agreement(pairs)
            if not found.n:
                continue
            rule, effect = rules.share, found.share - 0.5
            why = rule.lacking(found.n)
            ends = (found.low - 0.5, found.high - 0.5)
            counted = "passes by size counted" if by_size else "passes by size left out"
            yield Score(
                claim=f"stage-2 condition {name} says who forgets less ({counted})",
                prediction="> 0",
                measured=effect,
                low=ends[0],
                high=ends[1],
                unit="share of runs − ½",
                null=f"{found.agree} of {found.n} agree, p = {found.p:.2g}",
                n=found.n,
                verdict="undetermined" if why else rule.judge(*ends, found.n),
                why=why,
                source="delta2/condition",
            )


def predictors(written: Written, rules: Rules) -> Iterator[Score]:
    """Judge which numbers predict forgetting over runs: Spearman's ρ in the expected direction."""
    rows = written.rows("forgetting")
    seeds, arms = [row["seed"] for row in rows], [row["arm"] for row in rows]
    change = column(rows, "change").tolist()
    for key, text, sign in _PREDICTORS:
        values = (sign * column(rows, key)).tolist()
        found = rank_correlation(values, change, seeds, arms)
        if not np.isfinite(found.rho):
            continue
        rule = rules.share
        why = rule.lacking(found.seeds)
        few = "the interval is too narrow below 20 seeds" if found.seeds < 20 else ""  # noqa: PLR2004
        within = f"within arms {found.within:+.2f}" if np.isfinite(found.within) else ""
        yield Score(
            claim=f"{text} goes with more forgetting",
            prediction="> 0",
            measured=found.rho,
            low=found.low,
            high=found.high,
            unit="ρ",
            null="; ".join(filter(None, [f"{found.n} runs", within])),
            n=found.seeds,
            verdict="undetermined" if why else rule.judge(found.low, found.high, found.seeds),
            why=why or few,
            source="forgetting",
        )


def _runs(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((str(row["arm"]), str(row["seed"])), []).append(row)
    return found


def _first_of(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, bool]]:
    """Return the margin at each run's first checkpoint, and whether it passes by size."""
    return {
        run: (number(mine[0], "margin"), mine[0]["state"] == "by size")
        for run, mine in _runs(rows).items()
    }


def _middle_of(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, bool]]:
    """Return the sum of the margin's signs over each run's checkpoints; by size if most are."""
    return {
        run: (
            float(np.sum(np.sign(column(mine, "margin")))),
            2 * sum(row["state"] == "by size" for row in mine) > len(mine),
        )
        for run, mine in _runs(rows).items()
    }


def _measured(written: Written, arm: str, seed: str) -> list[Row]:
    """Return Δ of a seed from the arm's control, else from the reference, to the arm."""
    known = titles(written, "delta2")
    to_arm = [title for title in known if title.endswith(f" → {arm}")]
    chosen = [title for title in to_arm if not through(title, known)]
    rows = [
        row for title in chosen[:1] for row in written.rows("delta2", "seeds", comparison=title)
    ]
    return [row for row in rows if row["quantity"] == "Δ" and str(row["seed"]) == seed]
