"""Geometry of single examples as tidy tables, one function a table.

Every row names its arm, checkpoint and group. A cosine whose reliability bound is under 0.5 is
`undetermined`; one between whole sets is `exact`; all others have an interval over examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from geomix.analysis.grad_angle.example_gram import ExampleGeometry
from geomix.measures.example_gram import (
    by_conflict,
    conflicts,
    cosine_with_set,
    example_cosines,
    largest_share,
    members,
    pair_values,
    set_products,
    with_set,
)
from geomix.measures.sampling_error import reliability, set_cosine
from geomix.measures.subspace import (
    SHARE,
    effective_rank,
    overlap,
    participation_ratio,
    principal_angles,
    random_least_angle,
    random_overlap,
    rank_of,
    spectrum,
)

Rows = Iterator[dict[str, Any]]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def cosine_rows(found: ExampleGeometry) -> Rows:
    """Yield for every group and pair of sets the cosine, its reliability, and its verdict.

    `measured` is the cosine between the measured examples, `cosine` the estimate for the sets
    (`geomix.measures.sampling_error.set_cosine`), with its 95 % interval over examples.
    """
    inner = set_products(found.gram, found.owners)
    reliable = reliability(found.gram, found.owners, found.sampled)
    for i, j in combinations(range(len(found.sets)), 2):
        shares = (found.sampled[i], found.sampled[j])
        cosine = set_cosine(found.gram, found.owners, (i, j), shares)
        for g, where in enumerate(_groups(found)):
            exact = shares == (1.0, 1.0)
            yield where | {
                "first": found.sets[i],
                "second": found.sets[j],
                "inner_product": float(inner[g, i, j]),
                "measured": float(cosine.measured[g]),
                "cosine": float(cosine.estimate[g]),
                "low": float(cosine.low[g]),
                "high": float(cosine.high[g]),
                "verdict": "undetermined"
                if cosine.undetermined[g]
                else ("exact" if exact else "interval"),
                "bound": float(cosine.bound[g]),
                "reliability_first": float(reliable[g, i]),
                "reliability_second": float(reliable[g, j]),
                "n_first": found.probes[found.sets[i]][0],
                "of_first": found.probes[found.sets[i]][1],
                "n_second": found.probes[found.sets[j]][0],
                "of_second": found.probes[found.sets[j]][1],
            }


def quantile_rows(found: ExampleGeometry) -> Rows:
    """Yield quantiles of cosines of pairs, for every group and two sets, which may be the same."""
    table = example_cosines(found.gram)
    for i, j in combinations_with_replacement(range(len(found.sets)), 2):
        values = pair_values(table, found.owners, i, j)
        for g, where in enumerate(_groups(found)):
            mine = values[g][np.isfinite(values[g])]
            none = len(mine) == 0
            quantiles = np.full(len(QUANTILES), np.nan) if none else np.quantile(mine, QUANTILES)
            yield where | {
                "first": found.sets[i],
                "second": found.sets[j],
                "pairs": len(mine),
                "mean": float("nan") if none else float(mine.mean()),
                "negative": float("nan") if none else float((mine < 0).mean()),
                **{f"q{100 * q:g}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)},
            }


def rank_rows(found: ExampleGeometry) -> Rows:
    """Yield for every group and set the rank of its examples' gradients, and the largest share."""
    for s, name in enumerate(found.sets):
        at = members(found.owners, s)
        blocks = found.gram[:, at[:, None], at]
        entropy, ratio, values = (
            effective_rank(blocks),
            participation_ratio(blocks),
            spectrum(blocks),
        )
        longest = largest_share(blocks)
        for g, where in enumerate(_groups(found)):
            yield where | {
                "set": name,
                "n": len(at),
                "effective_rank": float(entropy[g]),
                "participation_ratio": float(ratio[g]),
                "largest_share": float(longest[g]),
                f"directions_{100 * SHARE:g}": rank_of(values[g]),
            }


def angle_rows(found: ExampleGeometry) -> Rows:
    """Yield for every group and two sets the angles between directions of 90 % of their gradients.

    The null that decides is the pair's with the held-out set; `random_…` is that of uniformly
    random subspaces of these dimensions in a space of `parameters`.
    """
    at = [members(found.owners, s) for s in range(len(found.sets))]
    for g, where in enumerate(_groups(found)):
        ranks = [rank_of(spectrum(found.gram[g][np.ix_(one, one)])) for one in at]
        for i, j in combinations(range(len(found.sets)), 2):
            angles = np.degrees(principal_angles(found.gram[g], at[i], at[j]))
            size, none = int(found.sizes[g]), len(angles) == 0
            least = random_least_angle(ranks[i], ranks[j], size)
            yield where | {
                "first": found.sets[i],
                "second": found.sets[j],
                "directions_first": ranks[i],
                "directions_second": ranks[j],
                "parameters": size,
                "smallest_degrees": float("nan") if none else float(angles[0]),
                "median_degrees": float("nan") if none else float(np.median(angles)),
                "largest_degrees": float("nan") if none else float(angles[-1]),
                "overlap": overlap(np.radians(angles)),
                "random_overlap": random_overlap(ranks[i], ranks[j], size),
                "random_smallest_degrees": float(np.degrees(least)),
            }


def conflict_rows(
    found: ExampleGeometry, first: str, second: str, most: int, group: int = 0
) -> Rows:
    """Yield the pairs of examples whose gradients conflict most, with their texts, worst first.

    Args:
        found: the Gram matrices.
        first: set of the pair's first example, such as D_A.
        second: set of its second, such as D_B.
        most: largest number of pairs.
        group: index of the group of parameters; 0 is the whole model.
    """
    i, j = found.sets.index(first), found.sets.index(second)
    gram, where = found.gram[group], list(_groups(found))[group]
    sets = float(set_products(gram, found.owners)[i, j])
    cosine = example_cosines(gram)
    for rank, (a, b) in enumerate(conflicts(gram, found.owners, i, j, most), start=1):
        yield where | {
            "rank": rank,
            "inner_product": float(gram[a, b]),
            "cosine": float(cosine[a, b]),
            "share_of_sets": float(gram[a, b]) / sets if sets else float("nan"),
            **_named(found, "first", first, a),
            **_named(found, "second", second, b),
        }


def fact_rows(found: ExampleGeometry, first: str, second: str, group: int = 0) -> Rows:
    """Rank every example of one set by its gradient's conflict with another set's, worst first.

    Args:
        found: the Gram matrices.
        first: the examples' set, such as D_A; their inner products sum to the sets'.
        second: the other, such as D_B.
        group: index of the group of parameters; 0 is the whole model.
    """
    i, j = found.sets.index(first), found.sets.index(second)
    gram, where = found.gram[group], list(_groups(found))[group]
    against, cosine = with_set(gram, found.owners, j), cosine_with_set(gram, found.owners, j)
    mine = members(found.owners, i)
    ranked = mine[np.argsort(against[mine], kind="stable")]
    for rank, a in enumerate(ranked, start=1):
        yield where | {
            "rank": rank,
            "against": second,
            "inner_product": float(against[a]),
            "cosine": float(cosine[a]),
            **_named(found, "first", first, a),
        }


def pairwise_rows(found: ExampleGeometry, first: str, second: str, group: int = 0) -> Rows:
    """Yield the cosine of every pair of examples, each pair once, ordered by set, then by conflict.

    Args:
        found: the Gram matrices.
        first: the set whose conflict is with `second`; every other's is with `first`.
        second: see above.
        group: index of the group of parameters; 0 is the whole model.
    """
    i, j = found.sets.index(first), found.sets.index(second)
    gram, where = found.gram[group], list(_groups(found))[group]
    order, table = by_conflict(gram, found.owners, i, j), example_cosines(gram)
    names = [(found.sets[found.owners[k]], _number(found, k)) for k in order]
    for a in range(len(order)):
        for b in range(a, len(order)):
            (one, m), (other, n) = names[a], names[b]
            pair = {"set": one, "example": m, "other_set": other, "other_example": n}
            yield where | pair | {"cosine": float(table[order[a], order[b]])}


def _groups(found: ExampleGeometry) -> Iterator[dict[str, Any]]:
    for group in found.groups:
        yield {"arm": found.arm, "seed": found.seed, "moment": found.checkpoint, "group": group}


def _number(found: ExampleGeometry, index: int) -> int:
    """Return the index of an example in its own set."""
    return int(index - members(found.owners, int(found.owners[index]))[0])


def _named(found: ExampleGeometry, key: str, name: str, index: int) -> dict[str, Any]:
    text = found.texts[index]
    return {
        f"{key}_set": name,
        f"{key}_example": _number(found, index),
        f"{key}_prompt": text.prompt,
        f"{key}_target": text.target,
    }
