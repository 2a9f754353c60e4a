"""Tables of `geomix analyze kl-law`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from geomix.analysis.kl_law.fits import OUTCOMES
from geomix.analysis.kl_law.result import DIRECTIONS, LAW, NEW, RIVAL, START, Key, KLLaw, Point
from geomix.config.names import HELD_OUT
from geomix.measures.cross_validation import FORMS, coefficients, curve, difference

Rows = list[dict[str, Any]]

SHOWN = (LAW, Key(HELD_OUT, START, DIRECTIONS[0]), RIVAL)
"""Predictors that answer and figure show, as far as every point has them."""

FITTED = "fit"
"""Arm of the rows of a fit's curve, in the figure's table."""

_CURVE = 40
"""Points of a drawn curve."""


def tables(result: KLLaw) -> dict[str, Rows]:
    """Return points (main), divergences, fits, and comparisons with the law."""
    return {
        "": list(_points(result)),
        "divergences": list(_divergences(result)),
        "fits": list(_fits(result)),
        "comparisons": list(comparison_rows(result)),
    }


def _at(point: Point) -> dict[str, Any]:
    return {"arm": point.arm, "seed": point.seed, "stage": point.stage + 1, "trained": point.new}


def _points(result: KLLaw) -> Iterator[dict[str, Any]]:
    for point in result.points:
        nats = point.forgotten["nats"]
        row = {**_at(point), "set": result.name, "nats": nats, "bits": nats / math.log(2)}
        row |= {"exact_match": point.forgotten["exact_match"]}
        row |= {"exact_start": point.exact[0], "exact_end": point.exact[1]}
        for key in SHOWN:
            value = point.value(key)
            row[_column(key)] = math.nan if value is None else value
        yield row


def _column(key: Key) -> str:
    return "length" if not key.on else f"kl_{'new' if key.on == NEW else 'held_out'}"


def _divergences(result: KLLaw) -> Iterator[dict[str, Any]]:
    for point in result.points:
        for (name, to), found in point.divergences.items():
            for direction in DIRECTIONS:
                yield {
                    **_at(point),
                    "set": name,
                    "to": to,
                    "direction": direction,
                    "per_token": found.per_token(direction),
                    "per_answer": found.per_answer(direction),
                    "answers": len(found.tokens),
                    "tokens": int(found.tokens.sum()),
                }


def _fits(result: KLLaw) -> Iterator[dict[str, Any]]:
    for (key, outcome, form), fit in result.fits.items():
        mean, low, high = fit.interval(result.units)
        values = [*coefficients(form, fit.x, fit.y).tolist(), math.nan]
        yield {
            "predictor": result.named(key),
            "on": key.on,
            "to": key.to,
            "direction": key.direction,
            "rival": result.is_rival(key),
            "outcome": outcome,
            "form": form,
            "points": len(fit.x),
            "r2": mean,
            "low": low,
            "high": high,
            "r2_within": fit.within,
            "null": float(np.median(fit.null)),
            "p": fit.p,
            "a": values[0],
            "b": values[1],
        }


def comparison_rows(result: KLLaw) -> Iterator[dict[str, Any]]:
    """Yield R² of the law less that of each other predictor: the same points, outcome and form."""
    for outcome in OUTCOMES:
        for form in FORMS:
            law = result.fit(LAW, outcome, form)
            for key in result.keys:
                other = result.fit(key, outcome, form)
                if law is None or other is None or key == LAW:
                    continue
                mean, low, high = difference(law, other, result.units)
                names = {"law": result.named(LAW), "against": result.named(key)}
                at = {"rival": result.is_rival(key), "outcome": outcome, "form": form}
                yield {**names, **at, "difference": mean, "low": low, "high": high}


def drawn_rows(result: KLLaw) -> Rows:
    """Return what the figure shows: points and curves, a predictor after the other."""
    found: Rows = []
    for key in SHOWN:
        if key not in result.keys:
            continue
        fit, name = result.fit(key), result.named(key)
        r2 = math.nan if fit is None else fit.skill
        for point in result.points:
            at = {"predictor": name, "arm": point.arm, "kind": "point", "seed": point.seed}
            where = {"stage": point.stage + 1, "x": point.value(key)}
            found.append({**at, **where, "nats": point.forgotten["nats"], "r2": r2})
        if fit is not None:
            x = np.linspace(0, fit.x.max(), _CURVE)
            y = curve(fit.form, coefficients(fit.form, fit.x, fit.y), x)
            at = {"predictor": name, "arm": "", "kind": FITTED, "seed": "", "stage": ""}
            found += [
                {**at, "x": float(one), "nats": float(other), "r2": r2}
                for one, other in zip(x, y, strict=True)
            ]
    return found
