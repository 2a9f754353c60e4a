"""Single examples in `geomix analyze grad-angle`, at one checkpoint of every arm."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.analysis.base import Log
from geomix.analysis.checkpoints import chosen
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.notes import number, signed
from geomix.analysis.grad_angle.pair import Pair, preferred
from geomix.analysis.partial_results import Unfinished, arm_results
from geomix.measures.subspace import SHARE
from geomix.runs.directory import RunDirectory
from geomix.util.progress import during

if TYPE_CHECKING:
    from geomix.experiments.checkpoints import Revisit, StoredCheckpoint

Tables = dict[str, list[dict[str, Any]]]
"""Tidy tables by name: cosines, quantiles, ranks, principal_angles, conflicts, facts, pairs."""

MOST_CONFLICTS = 100
"""Most pairs in the list."""

_SHOWN = 5
"""Conflicts of an arm shown on the terminal."""

_LONGEST = 28
"""Most characters of a text; its end is kept, since templates begin alike."""

_OVERLAP = (
    "overlap: mean squared cosine of the principal angles between the directions that hold "
    f"{100 * SHARE:g} % of each set's squared lengths, 0 to 1; what {{}}'s is with others is read "
    "against held-out's."
)


def single_examples(
    pasts: Mapping[Path, Revisit],
    arms: Sequence[RunDirectory],
    asked: Asked,
    log: Log,
    kept: Unfinished | None = None,
) -> dict[str, Tables]:
    """Compare the gradients of single examples in each arm whose weights are available.

    The checkpoint is the first requested one after θ_A whose weights are kept; else θ_A, else the
    first of all: at θ_A itself the gradients of D_A are nearly zero. If the sets meet in a later
    stage, θ_A is the checkpoint that this stage starts from.

    Args:
        pasts: the arms with usable weights, by folder.
        arms: the run's arms, in order.
        asked: the options: grouping, checkpoints, and number of examples.
        log: receives progress lines.
        kept: results of the same command before it was killed.

    Returns:
        The tables by the arm's name; empty if nothing is requested or available.
    """
    if not asked.examples:
        return {}
    found: dict[str, Tables] = {}
    for arm in arms:
        past = pasts.get(arm.path)
        stored = None if past is None else _checkpoint(past, asked)
        if past is not None and stored is not None:
            log(f"{arm.path}: single examples at {_label(past, stored)}")
            settings = {"by": asked.by, "examples": asked.examples, "sets": asked.sets}
            results = arm_results(kept or Unfinished(), past, settings, [])
            tables = results.tables(stored)
            if tables is None:
                tables = _tables(past, stored, asked)
                results.keep_tables(stored, tables)
            found[arm.name] = tables
            past.ready.loaded = None
    return found


def _checkpoint(past: Revisit, asked: Asked) -> StoredCheckpoint | None:
    from geomix.analysis.past_checkpoints import ignored, named_checkpoint

    is_asked = chosen(asked.at)
    checkpoints = {named_checkpoint(past, p): p for p in past.checkpoints(ignored)}
    there = [checkpoint for checkpoint in checkpoints if is_asked(checkpoint)]
    pair = Pair.of(asked.sets)
    ranked = sorted(there, key=lambda checkpoint: preferred(checkpoint, pair))
    return checkpoints[ranked[0]] if ranked else None


def _label(past: Revisit, stored: StoredCheckpoint) -> str:
    from geomix.analysis.past_checkpoints import named_checkpoint

    return named_checkpoint(past, stored).label


@during(lambda past, stored, _: f"{past.arm.name}: single examples at {_label(past, stored)}")
def _tables(past: Revisit, stored: StoredCheckpoint, asked: Asked) -> Tables:
    from geomix.analysis.grad_angle import example_tables as rows
    from geomix.analysis.grad_angle.example_gram import example_geometry

    by = "layer" if asked.by == "head" else asked.by
    stage = past.stages()[stored.stage]
    geometry = example_geometry(past, stored, stage, by, asked.examples)
    pair = Pair.of(asked.sets).names
    return {
        "cosines": list(rows.cosine_rows(geometry)),
        "quantiles": list(rows.quantile_rows(geometry)),
        "ranks": list(rows.rank_rows(geometry)),
        "principal_angles": list(rows.angle_rows(geometry)),
        "conflicts": list(rows.conflict_rows(geometry, *pair, MOST_CONFLICTS)),
        "facts": list(rows.fact_rows(geometry, *pair)),
        "pairs": list(rows.pairwise_rows(geometry, *pair)),
    }


def without_pairs(found: Mapping[str, Tables]) -> dict[str, Tables]:
    """Return all tables but the matrix of pairs, which the figure's CSV holds; nan becomes None."""
    return {
        arm: {name: [_plain(r) for r in rows] for name, rows in tables.items() if name != "pairs"}
        for arm, tables in found.items()
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    bad = {key for key, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return {key: None if key in bad else value for key, value in row.items()}


def render(
    found: Mapping[str, Tables],
    whole: Mapping[str, Collection[str]] | None = None,
    pair: Pair | None = None,
) -> RenderableType:
    """Render each arm's worst conflicts and the geometry of its examples, in 80 columns.

    Args:
        found: the tables of each arm.
        whole: the sets of each arm with exact angles, since every example was used: no uncertainty
            from a sample is reported for these.
        pair: the sets to compare; None is D_A and D_B.
    """
    pair = pair or Pair()
    parts: list[RenderableType] = []
    for arm, tables in found.items():
        parts += ["", *_conflicts(arm, tables, pair), _sets(tables, pair.first)]
        known = (whole or {}).get(arm, ())
        parts += [Text(line) for line in _uncertain(tables, known, pair.first)]
    parts += ["", Text(_OVERLAP.format(pair.first))] if found else []
    return Group(*parts)


def _conflicts(arm: str, tables: Tables, pair: Pair) -> list[RenderableType]:
    """Render the conflicts, with the title above the table, which may be narrower."""
    at, rows = tables["cosines"][0], tables["conflicts"][:_SHOWN]
    where = f"{arm}, seed {at['seed']}, at {at['moment']}: "
    if not rows:
        none = f"no example of {pair.first} conflicts with one of {pair.second}"
        return [Text(where + none, style="bold")]
    title = Text(where + "pairs of examples by inner product, lowest first", style="bold")
    table = Table(box=None, padding=(0, 1))
    for name in ("product", "cos", *pair.names):
        table.add_column(name, justify="left" if name in pair.names else "right", no_wrap=True)
    for row in rows:
        texts = (_text(row[f"{k}_prompt"], row[f"{k}_target"]) for k in ("first", "second"))
        numbers = number(row["inner_product"]), signed(row["cosine"])
        table.add_row(*numbers, *(Text(text) for text in texts))
    return [title, table]


def _text(prompt: str, target: str) -> str:
    whole = " ".join(f"{prompt} → {target}".split())
    return whole if len(whole) <= _LONGEST else "…" + whole[1 - _LONGEST :]


def _sets(tables: Tables, first: str) -> Table:
    """Render the agreement of each set's examples, and the subspace shared with the first set's."""
    table = Table(box=None, padding=(0, 1))
    with_first = f"cos with {first}\n5 % to 95 %"
    names = ["set", "cos within\n5 % to 95 %", with_first, "effective\nrank of n"]
    for name in [*names, f"overlap\nwith {first}"]:
        table.add_column(name, justify="left" if name == "set" else "right", no_wrap=True)
    whole = [row for row in tables["quantiles"] if row["group"] == "all"]
    pairs = {frozenset((row["first"], row["second"])): row for row in whole}
    angles = {
        _other(row, first): row
        for row in tables["principal_angles"]
        if row["group"] == "all" and first in (row["first"], row["second"])
    }
    for row in (row for row in tables["ranks"] if row["group"] == "all"):
        name = row["set"]
        other = angles.get(name)
        table.add_row(
            name,
            _spread(pairs[frozenset((name,))]),
            _spread(pairs[frozenset((first, name))]) if name != first else "",
            f"{row['effective_rank']:.1f} of {row['n']}",
            f"{other['overlap']:.3f}" if other else "",
        )
    return table


def _spread(row: Mapping[str, Any]) -> str:
    return f"{signed(row['q5'])} to {signed(row['q95'])}"


def _other(row: Mapping[str, Any], name: str) -> str:
    """Return the other set of a row's two."""
    return str(row["second"] if row["first"] == name else row["first"])


def _uncertain(tables: Tables, whole: Collection[str], first: str) -> list[str]:
    """Return lines on the uncertainty from subsamples."""
    lines = []
    for row in tables["cosines"]:
        both = {row["first"], row["second"]}
        if row["group"] != "all" or row["verdict"] == "exact" or first not in both:
            continue
        if both <= {*whole}:
            continue
        names = f"cos({first}, {_other(row, first)})"
        what = f"{names} of the sets, freed of noise: {signed(row['cosine'])}"
        between = f"{signed(row['low'])} to {signed(row['high'])} over examples"
        note = " undetermined;" if row["verdict"] == "undetermined" else ""
        lines.append(f"{what},{note} {between}; reliability bound {number(row['bound'])}")
    return lines
