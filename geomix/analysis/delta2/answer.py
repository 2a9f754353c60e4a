"""The answer of `geomix analyze delta2`, and the full report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from geomix.analysis.answer import file_map, fitted, seeds_of, wrapped
from geomix.analysis.delta2.result import Delta2
from geomix.analysis.delta2.statistics import Level, estimates, shown
from geomix.analysis.delta2.tables import group_rows
from geomix.analysis.delta2.verdicts import (
    assumption_notes,
    condition_notes,
    draws_notes,
    findings,
    floor_note,
    headline,
    judge,
    later_note,
    local_notes,
    number,
)
from geomix.analysis.parameter_groups import By
from geomix.config.names import MIXED
from geomix.measures.verdict import Rule
from geomix.runs.directory import RunDirectory

_MOST = 4
"""Most comparisons in an answer."""


def answer(
    result: Delta2,
    rule: Rule,
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
    full: bool,
) -> list[str]:
    """Return the answer: who forgot less, by which part, the verdict, and the local theory's reach.

    Args:
        result: the comparisons.
        rule: smallest effect and planned seeds.
        stem: beginning of the files' names.
        run: the run in whose folder they lie.
        files: all that were written.
        full: whether all tables follow.
    """
    lines = _opening(result, rule, run)
    lines += wrapped(floor_note(result))
    local = list(local_notes(result))
    lines += wrapped("Local theory, one step at θ_A. " + " ".join(local[:2])) if local else []
    own = [n for n in condition_notes(result) if n.startswith(f"{result.arms.reference}, {MIXED}:")]
    lines += wrapped(f"Mixing in stage 2 would help on the path of {own[0]}") if own else []
    lines += [line for note in draws_notes(result) for line in wrapped(note)][:4]
    lines += [] if full else ["All numbers and the paper's assumptions: the same with --full."]
    meanings = {
        "analysis/": "one table a level, by seed, by layer, along the steps",
        "figures/_parts": "Δ's parts from arm to arm",
        "figures/_condition": "the stage-2 condition along the steps",
    }
    return fitted(lines, file_map(run, files, stem, meanings))


def short_answer(
    result: Delta2, rule: Rule, stem: str, run: RunDirectory, files: Sequence[Path], full: bool
) -> list[str]:
    """Return Δ and its parts alone; arguments as in `answer`."""
    lines = _opening(result, rule, run)
    lines += [] if full else ["The local theory and its reach: the same without --parts."]
    meanings = {"analysis/": "the tables", "figures/": "Δ's parts from arm to arm"}
    return fitted(lines, file_map(run, files, stem, meanings))


def _opening(result: Delta2, rule: Rule, run: RunDirectory) -> list[str]:
    """Return the question, Δ and its parts, the verdict, and the arms' losses of D_B."""
    arms = result.arms
    return [
        *wrapped(f"Who forgets less of D_A than {arms.reference}, and by which part?"),
        *wrapped(
            f"{run.name}, {seeds_of(arms.seeds)}; "
            f"D_A: {result.counted}, {result.reduction} loss, nats"
        ),
        "",
        *_headline(result),
        *_verdict(result, rule),
        *wrapped(later_note(result)),
    ]


def _headline(result: Delta2) -> list[str]:
    """Return Δ and its parts, one comparison per line."""
    rows = headline(result)
    width = max((len(str(row[0].pair)) for row in rows), default=0)
    lines = [["Δ > 0: forgot less".ljust(width), "Δ", "Δ₁", "Δ₂", "Δ₃", "Δ₂/Δ"]]
    for row in rows[:_MOST]:
        total, second = row[0].mean, row[2].mean
        share = f"{100 * second / total:.0f} %".replace("-", "−") if total else "–"
        lines.append([str(row[0].pair), *(_fixed(one.mean) for one in row), share])
        if row[0].n > 1:
            halves = [f"±{one.high - one.mean:.3f}" for one in row]
            lines.append([f"  {row[0].n} seeds", *halves, ""])
    left_out = len(rows) - _MOST
    more = (
        [f"… and {left_out} more comparison{'s' * (left_out > 1)}, with --full"]
        if left_out > 0
        else []
    )
    return [*_aligned(lines), *more]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of cells as lines; the first column holds the names of two arms."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    first = min(widths[0], 34)
    short = [[row[0][:first].ljust(first), *row[1:]] for row in rows]
    return [
        "  ".join(
            cell if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in short
    ]


def _fixed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _verdict(result: Delta2, rule: Rule) -> Iterator[str]:
    judged = [row[0] for row in headline(result) if row[0].pair.judged]
    given = [(one, *judge(one, rule)) for one in judged]
    reasons = {why for _, _, why in given}
    if len(reasons) == 1 and (reason := reasons.pop()):
        yield from wrapped(f"Verdict: undetermined: {reason}.")
        return
    for one, found, why in given:
        yield from wrapped(f"Verdict, {one.pair}: {found}{f' ({why})' if why else ''}.")


def report(result: Delta2, rule: Rule, by: By) -> RenderableType:
    """Return findings, notes and the tables of each level."""
    parts: list[RenderableType] = list(_verdict(result, rule))
    if rule.smallest is not None:
        parts += [line for finding in findings(result, rule) for line in finding.lines()]
    sections: Mapping[str, Sequence[str]] = {
        "Beside it": [later_note(result), floor_note(result)],
        "Local theory: one step at θ_A, not the run": list(local_notes(result)),
        "The stage-2 condition along each arm's checkpoints": list(condition_notes(result)),
        "The paper's assumptions; they never explain a Δ": list(assumption_notes(result)),
        "Claim (a)": list(draws_notes(result)),
    }
    for title, notes in sections.items():
        if notes:
            parts += ["", title, *(line for note in notes for line in wrapped(note))]
    titles: Mapping[Level, str] = {
        "headline": "Δ and its parts: real displacements",
        "local": "Local theory, within its reach alone",
        "assumptions": "The paper's assumptions: coefficients of powers of η, never times an η",
    }
    for level, title in titles.items():
        parts += ["", _wide(result, level, title)]
    parts += ["", _groups(result, by)]
    return Group(*parts)


def _wide(result: Delta2, level: Level, title: str) -> Table:
    found = list(estimates(result, level))
    pairs = list(dict.fromkeys(str(one.pair) for one in found))
    keys = list(dict.fromkeys(one.key for one in found))
    cells = {(one.key, str(one.pair)): shown(one) for one in found}
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for pair in pairs:
        table.add_column(pair, overflow="fold", justify="right")
    for key in keys:
        table.add_row(key, *(cells.get((key, pair), "–") for pair in pairs))
    return table


def _groups(result: Delta2, by: By) -> Table:
    columns = ("Δ₂", "Δ₂/η exact", "g_B·s_A", "g_A·s_B", "s_A·s_B")
    rows = list(group_rows(result, by))
    title = f"By {by}: Δ₂ in nats, Δ₂/η and its terms; each column adds up"
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for column in ("", by, *columns):
        table.add_column(column, overflow="fold", justify="right" if column in columns else "left")
    cells = dict.fromkeys((row["comparison"], row["group"]) for row in rows)
    values = {(row["comparison"], row["group"], row["quantity"]): row["mean"] for row in rows}
    before = ""
    for comparison, group in cells:
        named = "" if comparison == before else comparison
        table.add_row(named, group, *(number(values[comparison, group, q]) for q in columns))
        before = comparison
    return table
