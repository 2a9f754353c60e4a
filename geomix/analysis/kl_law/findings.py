"""Findings of `geomix analyze kl-law`: how much better the law predicts than its rivals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from geomix.analysis.findings import Finding
from geomix.analysis.kl_law.fits import OUTCOMES
from geomix.analysis.kl_law.result import LAW, RIVAL, Key, KLLaw
from geomix.analysis.kl_law.tables import SHOWN
from geomix.measures.cross_validation import Validated, difference
from geomix.measures.verdict import Rule

UNIT = "R²"

_SURE = 0.05
"""Largest p of the permuted predictor with which the law may be supported."""

_WORDS = {"nats": "nats", "exact_match": "exact match"}


def findings(result: KLLaw, rule: Rule) -> Iterator[Finding]:
    """Yield the law against ‖Δθ‖ and against KL on the held-out set, for each outcome.

    Args:
        result: of the measurement.
        rule: declared before the runs, for differences of R².
    """
    for outcome in OUTCOMES:
        law = result.fit(LAW, outcome)
        for key in (RIVAL, *(one for one in SHOWN if one not in (LAW, RIVAL))):
            other = result.fit(key, outcome)
            if law is not None and other is not None:
                yield _compared(result, outcome, key, law, other, rule)


def _compared(
    result: KLLaw, outcome: str, key: Key, law: Validated, other: Validated, rule: Rule
) -> Finding:
    mean, low, high = difference(law, other, result.units)
    count = len(set(result.units))
    word = rule.judge(low, high, count)
    sentence = (
        f"R² out of sample {law.skill:.2f} against {other.skill:.2f}; with permuted predictors as "
        f"good in {100 * law.p:.2g} % and {100 * other.p:.2g} %."
    )
    why = rule.lacking(count).replace("paired seeds", result.unit)
    if word == "supported" and law.p > _SURE:
        word, why = "undetermined", "it predicts no better than when it is permuted"
    name, rival = result.named(LAW), result.named(key)
    claim = f"{name} predicts {_WORDS[outcome]} of {result.name} lost better than {rival}"
    found = Finding(claim, mean, low, high, UNIT, count, word, sentence)
    return replace(found, sentence=f"{sentence} No verdict: {why}.") if why else found
