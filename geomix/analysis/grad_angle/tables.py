"""The angles as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from geomix.analysis.checkpoints import key_checkpoints
from geomix.analysis.directions import HELD_OUT, UPDATE, is_shuffled
from geomix.analysis.grad_angle.contrasts import secant_rows
from geomix.analysis.grad_angle.notes import notes, number, signed
from geomix.analysis.grad_angle.pair import Pair
from geomix.analysis.grad_angle.result import WHOLE, ArmAngles, GradAngle
from geomix.config.names import mix_label
from geomix.measures.cosine import Floats, cosines, norms
from geomix.measures.intervals import over_seeds

MOST_GROUPS = 40
"""Most groups in a table, those with the largest |g_A·g_B|; the files hold all."""

_MOST_COLUMNS = 9
"""Most cosines and norms that fit 80 columns: beyond it, norms have a table of their own."""

_LABEL = 7
"""Most characters of a mix's name in a heading."""


def render(result: GradAngle) -> RenderableType:
    """Render the whole model first, then every arm by group at its main checkpoints, then notes."""
    parts: list[RenderableType] = [*_whole_model(result)]
    for arm in result.arms:
        parts += ["", *_by_group(result, arm)]
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
    """Return the directions to show; shuffled labels, the null of D_M, are only in the files."""
    found = {name for arm in arms for name in arm.directions}
    return [name for name in result.directions if name in found and not is_shuffled(name)]


def _whole_model(result: GradAngle) -> list[Table]:
    shown = _columns(result, result.arms)
    seeds = max(len(arm.runs) for arm in result.arms)
    title = "Whole model" + (f", mean of {seeds} seeds" if seeds > 1 else "")
    tables = _Tables(title, result.pair.first, shown, seeds > 1)
    for arm in result.arms:
        if len(result.arms) > 1:
            tables.heading(arm.arm)
        inner = result.grouped_inner(arm)
        for label in key_checkpoints([arm.checkpoints]):
            tables.add(label, arm, inner[:, arm.labels.index(label), 0])
    return tables.found


def _by_group(result: GradAngle, arm: ArmAngles) -> list[Table]:
    shown = _columns(result, [arm])
    inner = result.grouped_inner(arm)
    kept = _largest(arm, inner, result.pair)
    title = f"{arm.arm}, by {result.by}"
    if len(kept) < len(result.groups) - 1:
        product = "·".join(result.pair.gradients)
        title += f" ({len(kept)} of {len(result.groups) - 1}: largest |{product}|; the CSV has all)"
    tables = _Tables(title, result.pair.first, shown, len(arm.runs) > 1)
    for label in key_checkpoints([arm.checkpoints], middle=False):
        m = arm.labels.index(label)
        tables.heading(f"at {label}")
        for g in (0, *kept):
            name = result.groups[g].removeprefix("model.").replace(".weight", "")
            tables.add("whole model" if g == 0 else name, arm, inner[:, m, g])
    return tables.found


def _largest(arm: ArmAngles, inner: Floats, pair: Pair) -> list[int]:
    """Return positions of the groups to print, in the model's order, without the whole model."""
    a, b = map(arm.directions.index, pair.names)
    weight = np.nan_to_num(np.abs(inner[:, :, 1:, a, b])).max(axis=(0, 1))
    chosen = np.argsort(-weight, kind="stable")[:MOST_GROUPS]
    return sorted(int(g) + 1 for g in chosen)


def _normed(name: str) -> bool:
    """Return whether the tables show a direction's norm; the files have all."""
    return name not in (HELD_OUT, UPDATE)


def _short(name: str) -> str:
    """Return a heading: `A`, `held`, `u`; a mix's own name is on a second line."""
    label = mix_label(name)
    if label:
        short = label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
        return f"{name.removesuffix(f'-{label}').removeprefix('D_')}\n{short}"
    return {HELD_OUT: "held", UPDATE: "u"}.get(name, name.removeprefix("D_"))


class _Tables:
    """Cosines with one set, and norms beside them, or below if there are too many columns.

    Args:
        title: the table's title.
        first: the set that all cosines are with.
        shown: directions, in order.
        several: whether cosines have an interval over seeds.
    """

    def __init__(self, title: str, first: str, shown: Sequence[str], several: bool) -> None:
        self._first = first
        self._others = [name for name in shown if name != first]
        self._normed = [name for name in shown if _normed(name)]
        apart = len(self._others) + len(self._normed) > _MOST_COLUMNS
        titles = [f"{title}: cosines", f"{title}: norms"] if apart else [title]
        look = {"title_justify": "left", "title_style": "bold", "padding": (0, 1, 0, 0)}
        self.found = [Table(title=one, box=None, **look) for one in titles]  # type: ignore[arg-type]
        for table in self.found:
            table.add_column("", overflow="fold", min_width=8)
        for name in self._others:
            width = 11 if several else 6
            self._column(0, f"cos\n{_short(first)}·{_short(name)}", width)
        for name in self._normed:
            self._column(-1, f"norm\n|g_{_short(name)}|", 6 if several else 7)

    def _column(self, table: int, header: str, width: int) -> None:
        self.found[table].add_column(header, justify="right", no_wrap=True, min_width=width)

    def heading(self, text: str) -> None:
        """Add a heading on a line of its own."""
        for table in self.found:
            table.add_row(Text(text, style="bold"))

    def add(self, label: str, arm: ArmAngles, inner: Floats) -> None:
        """Add a row, from inner products `(n, d, d)`; blank where this arm lacks one."""
        at = {name: i for i, name in enumerate(arm.directions)}
        cosine, norm = cosines(inner)[:, at[self._first]], norms(inner)
        angles = [
            _cosine(*over_seeds(cosine[:, at[name]])) if name in at else "" for name in self._others
        ]
        sizes = [
            number(float(norm[:, at[name]].mean())) if name in at else "" for name in self._normed
        ]
        rows = [[*angles, *sizes]] if len(self.found) == 1 else [angles, sizes]
        for table, cells in zip(self.found, rows, strict=True):
            table.add_row(Text(label), *cells)


def _cosine(mean: float, half: float) -> str:
    if np.isnan(half):
        return signed(mean)
    return f"{signed(mean)}±" + f"{half:.2f}".removeprefix("0")


def _secants(result: GradAngle) -> Table | None:
    """Render the whole model's secants of the pair, at the main checkpoints."""
    rows = [row for row in secant_rows(result) if row["group"] == WHOLE]
    if not rows:
        return None
    null = () if result.pair.null is None else (HELD_OUT,)
    wanted = (*result.pair.names, *null)
    names = [name for name in wanted if any(r["set"] == name for r in rows)]
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
