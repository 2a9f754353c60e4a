"""The angles as tables for a terminal of 80 columns."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.analyze.angle_notes import notes, number, signed
from geomix.analyze.angles import ArmAngles, GradAngle
from geomix.analyze.moments import key_moments
from geomix.geometry.cosine import cosines, norms

MOST_GROUPS = 40
"""More groups than this are cut to those that carry the largest |g_A·g_B|; the files hold all."""

_FOCUS = "D_A"


def render(result: GradAngle) -> RenderableType:
    """The whole model first, then every arm by group at its key moments, then what must be said."""
    parts: list[RenderableType] = [_whole_model(result)]
    for arm in result.arms:
        parts += ["", _by_group(result, arm)]
    parts.append("")
    for note in notes(result):
        bullet = Table.grid(padding=(0, 1))
        bullet.add_row("·", Text(note))
        parts.append(bullet)
    return Group(*parts)


def _whole_model(result: GradAngle) -> Table:
    sets = result.sets
    table = _table("Whole model", sets)
    for arm in result.arms:
        if len(result.arms) > 1:
            table.add_row(Text(arm.arm, style="bold"))
        labels = [moment.label for moment in arm.moments]
        for label in key_moments([arm.moments]):
            table.add_row(Text(label), *_cells(arm, sets, labels.index(label), 0))
    return table


def _by_group(result: GradAngle, arm: ArmAngles) -> Table:
    sets = [name for name in result.sets if name in arm.sets]
    kept = _largest(arm)
    title = f"{arm.arm}, by {result.by}"
    if len(kept) < len(result.groups) - 1:
        title += f" ({len(kept)} of {len(result.groups) - 1}: largest |g_A·g_B|; the CSV has all)"
    table = _table(title, sets)
    labels = [moment.label for moment in arm.moments]
    for label in key_moments([arm.moments], middle=False):
        m = labels.index(label)
        table.add_row(Text(f"at {label}", style="bold"))
        for g in (0, *kept):
            name = result.groups[g].removeprefix("model.").replace(".weight", "")
            table.add_row(Text("whole model" if g == 0 else name), *_cells(arm, sets, m, g))
    return table


def _largest(arm: ArmAngles) -> list[int]:
    """Positions of the groups to print, in the model's order, without the whole model."""
    a, b = arm.sets.index(_FOCUS), arm.sets.index("D_B")
    weight = np.nan_to_num(np.abs(arm.inner[:, 1:, a, b])).max(axis=0)
    chosen = np.argsort(-weight, kind="stable")[:MOST_GROUPS]
    return sorted(int(g) + 1 for g in chosen)


def _short(name: str) -> str:
    return "held" if name == "held-out" else name.removeprefix("D_")


def _table(title: str, sets: list[str]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("", overflow="fold", min_width=8)
    for name in sets[1:]:
        table.add_column(f"cos\nA·{_short(name)}", justify="right", no_wrap=True)
    for name in sets:
        if name != "held-out":
            header = f"norm\n|g_{_short(name)}|"
            table.add_column(header, justify="right", no_wrap=True, min_width=7)
    return table


def _cells(arm: ArmAngles, sets: list[str], m: int, g: int) -> list[str]:
    """One row's cosines with D_A and norms; blank where this arm lacks the set."""
    at = {name: i for i, name in enumerate(arm.sets)}
    cosine, norm = cosines(arm.inner[m, g])[at[_FOCUS]], norms(arm.inner[m, g])
    angles = [signed(float(cosine[at[name]])) if name in at else "" for name in sets[1:]]
    sizes = [
        number(float(norm[at[name]])) if name in at else "" for name in sets if name != "held-out"
    ]
    return [*angles, *sizes]
