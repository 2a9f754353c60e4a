"""The split of forgetting as tables for a terminal of 80 columns."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.analysis.forgetting_path.notes import nats, notes, percent
from geomix.analysis.forgetting_path.split import ArmSplit, ForgettingPath, checks, interval

MOST_GROUPS = 40
"""Most groups in a table, those of the largest change; the files hold all."""


def render(result: ForgettingPath, name: str) -> RenderableType:
    """Render both checks of every set first, then every arm's split, then the notes."""
    parts: list[RenderableType] = [_checks(result)]
    for arm in result.arms:
        parts += ["", _split(result, arm, name)]
    parts.append("")
    for note in notes(result, name):
        bullet = Table.grid(padding=(0, 1))
        bullet.add_row("·", Text(note))
        parts.append(bullet)
    return Group(*parts)


def _checks(result: ForgettingPath) -> Table:
    table = _table(f"Change of the loss in {result.title}, nats, and both checks")
    for header in ("measured", "Simpson", "error", "trape-\nzoid", "half as\nmany"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("moved\nplaces", justify="right", no_wrap=True)
    table.add_column("moved\nsources", justify="right", no_wrap=True)
    several = any(len(arm.seeds) > 1 for arm in result.arms)
    for row in checks(result):
        name = f"{row['arm']} {row['set']}" + (f" seed {row['seed']}" if several else "")
        changes = [nats(row[key], sign=True) for key in ("measured", "simpson")]
        sums = [nats(row[key], sign=True) for key in ("trapezoid", "coarser")]
        shares = [percent(row[key]) for key in ("moved_groups", "moved_parts")]
        table.add_row(Text(name), *changes, percent(row["error"]), *sums, *shares)
    return table


def _split(result: ForgettingPath, arm: ArmSplit, name: str) -> Table:
    s = arm.sets.index(name)
    kept = _largest(arm, s)
    title = f"{arm.arm}: {name} by {result.by}, nats"
    if len(kept) < len(result.groups) - 1:
        title += f" ({len(kept)} of {len(result.groups) - 1}: the largest; the files have all)"
    table = _table(title)
    table.add_column("change", justify="right", no_wrap=True)
    several = len(arm.seeds) > 1
    if several:
        table.add_column("± 95 %", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for part in arm.parts[1:]:
        table.add_column(part, justify="right", overflow="fold")
    mean = arm.simpson[:, :, s].mean(axis=0)
    for g in (0, *kept):
        group = result.groups[g].removeprefix("model.").replace(".weight", "")
        half = [nats(interval(arm.simpson[:, g, s, 0])["half_width"])] if several else []
        share = mean[g, 0] / mean[0, 0] if mean[0, 0] else np.nan
        sources = [nats(value, sign=True) for value in mean[g, 1:]]
        change = nats(mean[g, 0], sign=True)
        table.add_row(
            Text("whole model" if g == 0 else group), change, *half, percent(share), *sources
        )
    return table


def _largest(arm: ArmSplit, s: int) -> list[int]:
    """Return positions of the groups to print, in the model's order, without the whole model."""
    size = np.abs(arm.simpson[:, 1:, s, 0].mean(axis=0))
    return sorted(int(g) + 1 for g in np.argsort(-size, kind="stable")[:MOST_GROUPS])


def _table(title: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("", overflow="fold", min_width=8)
    return table
