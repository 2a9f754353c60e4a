"""Tables of `geomix analyze relearn`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from geomix.analysis.relearn.result import Member, Relearn
from geomix.measures.intervals import over_seeds
from geomix.measures.relearning import STATES

Rows = list[dict[str, Any]]


def tables(result: Relearn) -> dict[str, Rows]:
    """Return the courses of the cues (main), the facts, their states, and relearning."""
    return {
        "": list(_courses(result)),
        "facts": list(_facts(result)),
        "states": list(_states(result)),
        "whole": list(_whole(result)),
        "savings": list(_savings(result)),
    }


def _members(result: Relearn) -> Iterator[tuple[dict[str, Any], Member]]:
    for arm in result.arms:
        for member in arm.members:
            yield {"arm": arm.label, "seed": member.seed, "set": result.name}, member


def _courses(result: Relearn) -> Iterator[dict[str, Any]]:
    for at, member in _members(result):
        for course in member.courses:
            others = int((member.lost & ~course.cues).sum())
            recovered, bits = course.share(member.lost), course.mean_bits(member.lost)
            there = bool((member.kept & ~course.cues).any())
            kept = course.share(member.kept) if there else np.full(len(recovered), np.nan)
            for i, step in enumerate(course.steps):
                yield {
                    **at,
                    "cues": course.kind,
                    "retrained": int(course.cues.sum()),
                    "draw": course.draw,
                    "rate": course.rate,
                    "step": step,
                    "others": others,
                    "recovered": recovered[i],
                    "bits": bits[i],
                    "kept": kept[i],
                    "later": course.later[i],
                }


def _facts(result: Relearn) -> Iterator[dict[str, Any]]:
    for at, member in _members(result):
        step, rate = member.named
        courses = member.of(result.name, rate)
        found = member.states(result.name)
        for i, (prompt, target) in enumerate(member.texts):
            tested = [one for one in courses if not one.cues[i]]
            indices = [list(one.steps).index(step) for one in tested]
            back = sum(bool(one.right[k, i]) for one, k in zip(tested, indices, strict=True))
            after = [float(one.bits[k, i]) for one, k in zip(tested, indices, strict=True)]
            yield {
                **at,
                "fact": i,
                "prompt": prompt,
                "target": target,
                "state": found[i],
                "draws": len(tested),
                "returned": back,
                "ever": any(bool(one.right[:, i].any()) for one in _all_of(member, result, i)),
                **{f"bits_{name}": float(one.bits[i]) for name, one in member.scores.items()},
                "bits_after": float(np.mean(after)) if after else np.nan,
            }


def _all_of(member: Member, result: Relearn, fact: int) -> list[Any]:
    """Return the courses of the set's own cues, of all rates, in which a fact is no cue."""
    return [one for one in member.courses if one.kind == result.name and not one.cues[fact]]


def _states(result: Relearn) -> Iterator[dict[str, Any]]:
    for at, member in _members(result):
        for kind in member.kinds or [result.name]:
            found = member.states(kind)
            counts = {state.replace(" ", "_"): found.count(state) for state in STATES}
            yield {**at, "cues": kind, **counts, "hidden_percent": member.called_hidden(kind)}


def _whole(result: Relearn) -> Iterator[dict[str, Any]]:
    for at, member in _members(result):
        for one in member.relearnt:
            for step, exact, bits in zip(one.steps, one.exact, one.bits, strict=True):
                where = {**at, "set": one.name, "start": one.start}
                yield {**where, "step": step, "exact_match": exact, "bits": bits}


def _savings(result: Relearn) -> Iterator[dict[str, Any]]:
    for at, member in _members(result):
        for one, own, other in member.saved(result.name).values():
            yield {
                **at,
                "start": own.start,
                "against_start": other.start,
                "against_set": other.name,
                "steps": own.reached,
                "against_steps": other.reached,
                "budget": member.budget,
                "savings": one.value,
                "bound": one.bound,
            }


def drawn_rows(result: Relearn) -> Rows:
    """Return what the figure shows: recall and bits over the steps, means over draws and seeds."""
    found = []
    for arm in result.arms:
        lost = [member for member in arm.members if member.courses]
        kinds = dict.fromkeys(kind for member in lost for kind in member.kinds)
        rates = dict.fromkeys(one.rate for member in lost for one in member.courses)
        for kind in kinds:
            for rate in rates:
                mine = [m for m in lost if m.of(kind, rate)]
                for score in ("recall", "bits"):
                    values = np.array([_mean(m, kind, rate, score) for m in mine])
                    for step, column in zip(mine[0].courses[0].steps, values.T, strict=True):
                        mean, half = over_seeds(column)
                        at = {"arm": arm.label, "cues": kind, "rate": rate, "step": step}
                        at |= {"score": score, "value": mean, "half_width": half}
                        found.append({**at, "n": len(mine), "own": kind == result.name})
    return found


def _mean(member: Member, kind: str, rate: float, score: str) -> np.ndarray[Any, Any]:
    """Return a course's mean over draws, `(S,)`."""
    courses = member.of(kind, rate)
    lost = member.lost
    each = [one.share(lost) if score == "recall" else one.mean_bits(lost) for one in courses]
    found: np.ndarray[Any, Any] = np.mean(each, axis=0)
    return found
