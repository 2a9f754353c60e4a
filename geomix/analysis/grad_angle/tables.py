"""The angles as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.analysis.checkpoints import key_moments
from geomix.analysis.directions import HELD_OUT, UPDATE, is_shuffled
from geomix.analysis.grad_angle.contrasts import secant_rows
from geomix.analysis.grad_angle.notes import notes, number, signed
from geomix.analysis.grad_angle.result import WHOLE, ArmAngles, GradAngle
from geomix.measures.cosine import Floats, cosines, norms
from geomix.measures.intervals import over_seeds

MOST_GROUPS = 40
"""More groups than this are cut to those that carry the largest |g_A·g_B|; the files hold all."""

_FOCUS = "D_A"


def render(result: GradAngle) -> RenderableType:
    """The whole model first, then every arm by group at its key moments, then what must be said."""
    parts: list[RenderableType] = [_whole_model(result)]
    for arm in result.arms:
        parts += ["", _by_group(result, arm)]
    if (table := _secants(result)) is not None:
        # Above it, not its title: that would be broken at the table's width.
        title = "Secants from the stage's start: (g(θ) − g(θ_start))·(θ − θ_start), nats"
        parts += ["", Text(title, style="bold"), table]
    parts.append("")
    for note in notes(result):
        bullet = Table.grid(padding=(0, 1))
        bullet.add_row("·", Text(note))
        parts.append(bullet)
    return Group(*parts)


def _columns(result: GradAngle, arms: Sequence[ArmAngles]) -> list[str]:
    """Directions that are shown; that of shuffled labels is the null of D_M, and in the files."""
    found = {name for arm in arms for name in arm.directions}
    return [name for name in result.directions if name in found and not is_shuffled(name)]


def _whole_model(result: GradAngle) -> Table:
    shown = _columns(result, result.arms)
    seeds = max(len(arm.runs) for arm in result.arms)
    title = "Whole model" + (f", mean of {seeds} seeds" if seeds > 1 else "")
    table = _table(title, shown, seeds > 1)
    for arm in result.arms:
        if len(result.arms) > 1:
            table.add_row(Text(arm.arm, style="bold"))
        inner = result.grouped_inner(arm)
        for label in key_moments([arm.moments]):
            m = arm.labels.index(label)
            table.add_row(Text(label), *_cells(arm, shown, inner[:, m, 0]))
    return table


def _by_group(result: GradAngle, arm: ArmAngles) -> Table:
    shown = _columns(result, [arm])
    inner = result.grouped_inner(arm)
    kept = _largest(arm, inner)
    title = f"{arm.arm}, by {result.by}"
    if len(kept) < len(result.groups) - 1:
        title += f" ({len(kept)} of {len(result.groups) - 1}: largest |g_A·g_B|; the CSV has all)"
    table = _table(title, shown, len(arm.runs) > 1)
    for label in key_moments([arm.moments], middle=False):
        m = arm.labels.index(label)
        table.add_row(Text(f"at {label}", style="bold"))
        for g in (0, *kept):
            name = result.groups[g].removeprefix("model.").replace(".weight", "")
            cells = _cells(arm, shown, inner[:, m, g])
            table.add_row(Text("whole model" if g == 0 else name), *cells)
    return table


def _largest(arm: ArmAngles, inner: Floats) -> list[int]:
    """Positions of the groups to print, in the model's order, without the whole model."""
    a, b = arm.directions.index(_FOCUS), arm.directions.index("D_B")
    weight = np.nan_to_num(np.abs(inner[:, :, 1:, a, b])).max(axis=(0, 1))
    chosen = np.argsort(-weight, kind="stable")[:MOST_GROUPS]
    return sorted(int(g) + 1 for g in chosen)


def _normed(name: str) -> bool:
    """Whether the tables show a direction's length; the files have all."""
    return name not in (HELD_OUT, UPDATE)


def _short(name: str) -> str:
    return {HELD_OUT: "held", UPDATE: "u"}.get(name, name.removeprefix("D_"))


def _table(title: str, shown: Sequence[str], several: bool) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("", overflow="fold", min_width=8)
    for name in shown[1:]:
        header = f"cos\nA·{_short(name)}"
        table.add_column(header, justify="right", no_wrap=True, min_width=11 if several else 6)
    for name in shown:
        if _normed(name):
            header = f"norm\n|g_{_short(name)}|"
            table.add_column(header, justify="right", no_wrap=True, min_width=6 if several else 7)
    return table


def _cells(arm: ArmAngles, shown: Sequence[str], inner: Floats) -> list[str]:
    """One row's cosines with D_A and norms, of `(n, d, d)`; blank where this arm lacks one."""
    at = {name: i for i, name in enumerate(arm.directions)}
    cosine, norm = cosines(inner)[:, at[_FOCUS]], norms(inner)
    angles = [_cosine(*over_seeds(cosine[:, at[name]])) if name in at else "" for name in shown[1:]]
    sizes = [
        number(float(norm[:, at[name]].mean())) if name in at else ""
        for name in shown
        if _normed(name)
    ]
    return [*angles, *sizes]


def _cosine(mean: float, half: float) -> str:
    if np.isnan(half):
        return signed(mean)
    return f"{signed(mean)}±" + f"{half:.2f}".removeprefix("0")


def _secants(result: GradAngle) -> Table | None:
    """The whole model's secants of D_A, at the key moments."""
    rows = [row for row in secant_rows(result) if row["group"] == WHOLE]
    if not rows:
        return None
    names = [name for name in ("D_A", "D_B", HELD_OUT) if any(r["set"] == name for r in rows)]
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", min_width=8)
    for name in names:
        table.add_column(_short(name), justify="right", no_wrap=True, min_width=10)
    for name in names[:1]:
        table.add_column(f"first order\n{_short(name)}", justify="right", no_wrap=True)
    table.add_column("moved", justify="right", no_wrap=True)
    for arm in result.arms:
        mine = [row for row in rows if row["arm"] == arm.arm]
        if mine and len(result.arms) > 1:
            table.add_row(Text(arm.arm, style="bold"))
        for label in dict.fromkeys(row["moment"] for row in mine):
            here = {row["set"]: row for row in mine if row["moment"] == label}
            table.add_row(
                Text(label),
                *(number(here[name]["secant"]) for name in names),
                *(number(here[name]["first_order"]) for name in names[:1]),
                number(here[names[0]]["moved"]),
            )
    return table
