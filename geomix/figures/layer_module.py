"""Figure: the cosine of two gradients in every module of every layer, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath

from geomix.figures.labels import (
    Row,
    checkpoint_symbol,
    direction_symbol,
    is_undetermined,
    of_seeds,
    plain,
    short_group,
    unlike,
)
from geomix.figures.style import COLUMN, SIGNED, WIDTH, new_figure, settle, style
from geomix.figures.table import TableFigure, checkpoints_of

CROSSED = " · "
"""Separator of a layer and a module in a group's name."""

_BESIDE = 3
"""Most adjacent panels."""

_LEAST = 0.25
"""Least half-range of the colours, so that noise is not magnified."""

_FILLED = 0.74
"""Largest share of its cell's width that a number fills."""

_APART = 0.4
"""Gap between the layers and the other groups, in cells."""

_NAMED = 0.11
"""Least height of a row with a name of its own, in inches."""

_LARGEST, _SMALLEST = 6.0, 4.2
"""Range of the numbers' sizes, in points; if not even the smallest fits there are none."""

_DARK = 0.45
"""Lightness of a cell below which its number is white."""

_LESS = "\0difference"
"""Key of the panel of two arms' difference, which no arm can have."""

_NAME = 26
"""Most characters of a panel's title."""

_LABELS = 12
"""Number of layers above which not every one is numbered."""


def draw(
    rows: Sequence[Row],
    checkpoint: str,
    pair: tuple[str, str] = ("D_A", "D_B"),
    difference: tuple[str, str] | None = None,
) -> Figure:
    """Draw a panel per arm: layers upwards, modules across; other groups fill a row.

    Each cell has its number if it fits; an undetermined one is hatched without a number, an
    undefined one is empty.

    Args:
        rows: the tidy table of `geomix analyze grad-angle` by layer and module, of one metric.
        checkpoint: label of the checkpoint to draw.
        pair: of directions.
        difference: of two arms: one more panel, of the second one's cosine minus the first one's,
            with colours of its own; undetermined where either is.
    """
    rows = [
        row
        for row in rows
        if row["moment"] == checkpoint and {row["first"], row["second"]} == set(pair)
    ]
    unlike(rows, "arm", "group")
    cells = {(row["arm"], row["group"]): (row["cosine"], is_undetermined(row)) for row in rows}
    names = list(dict.fromkeys(row["arm"] for row in rows))
    panels = {arm: {g: cell for (a, g), cell in cells.items() if a == arm} for arm in names}
    if difference:
        less, more = (panels[arm] for arm in difference)
        panels[_LESS] = {
            g: (more[g][0] - less[g][0], more[g][1] or less[g][1]) for g in more if g in less
        }
    sheet = _Sheet.of(list(dict.fromkeys(row["group"] for row in rows)))
    drawn = list(panels.values())
    scale = _scale(drawn[: len(names)])
    wider = _scale(drawn[len(names) :])
    beside = min(len(panels), _BESIDE)
    width = COLUMN if beside == 1 else WIDTH
    down = math.ceil(len(panels) / beside)
    with style():
        figure = new_figure(0.5 + down * (sheet.height + 0.75), width)
        grid = figure.subplots(down, beside, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        used = list(grid.flat[: len(panels)])
        for number, (axes, name) in enumerate(zip(used, panels, strict=True)):
            title = plain(name, _NAME)
            if name == _LESS and difference:
                title = f"{plain(difference[1], _NAME // 2)} − {plain(difference[0], _NAME // 2)}"
            sheet.prepare(axes, title, left=number % beside == 0)
        unclear = [flag for cell in panels.values() for _, flag in cell.values()]
        if any(unclear):
            hatched = Patch(facecolor="0.75", edgecolor="0.2", hatch="/////", lw=0.3)
            figure.legend(
                [hatched], ["undetermined"], loc="outside upper right", frameon=False, fontsize=6.5
            )
        one, other = (direction_symbol(name) for name in pair)
        label = f"cos({one}, {other}) at {checkpoint_symbol(checkpoint)}"
        _bar(figure, used[: len(names)], scale, label)
        if difference:
            _bar(figure, used[-1:], wider, "difference of the cosines")
        settle(figure)
        for axes, cell in zip(used, panels.values(), strict=True):
            sheet.fill(axes, cell, wider if difference and axes is used[-1] else scale)
    return figure


def caption(rows: Sequence[Row], pair: tuple[str, str] = ("D_A", "D_B")) -> str:
    """Describe the figure in sentences."""
    one, other = pair
    return (
        f"Cosine of {one}'s gradient with {other}'s in each module (across) of each layer "
        "(upwards) at one moment of training, a panel an arm; bars above and below are groups "
        "outside the layers. Of several arms the last panel is the second's cosine less the "
        "first's, with a colour bar of its own. Hatched cells are undetermined, empty ones not "
        "defined. "
        f"{of_seeds(rows)}"
    )


def _scale(panels: Sequence[Mapping[str, tuple[float, bool]]]) -> Normalize:
    """Return colours symmetric about 0 that reach just beyond the largest number of the panels."""
    values = [abs(v) for cells in panels for v, _ in cells.values() if not math.isnan(v)]
    limit = max([_LEAST, *(math.ceil(10 * value) / 10 for value in values)])
    return Normalize(-limit, limit)


def _bar(figure: Figure, panels: Sequence[Axes], scale: Normalize, label: str) -> None:
    look: dict[str, Any] = {"shrink": 0.8, "aspect": 28 if len(panels) > 1 else 22, "pad": 0.015}
    bar = figure.colorbar(ScalarMappable(scale, SIGNED), ax=list(panels), **look)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Position of each group's cell.

    Attributes:
        layers: their numbers.
        modules: of a layer, in order.
        rows: the groups outside of the layers, by height.
        cells: `(x, y, width, height)` of each group's cell; in a layer, width and height are 1.
        unit: inches of a cell's height.
    """

    layers: list[int]
    modules: list[str]
    rows: dict[str, float]
    cells: dict[str, tuple[float, float, float, float]]
    unit: float

    @classmethod
    def of(cls, groups: Sequence[str]) -> _Sheet:
        crossed = {g: g.split(CROSSED, 1) for g in groups if CROSSED in g}
        found = dict.fromkeys(module for _, module in crossed.values())
        modules = sorted(found, key=lambda module: module == "norms")
        layers = sorted({int(layer.removeprefix("layer ")) for layer, _ in crossed.values()})
        outside = [g for g in groups if g not in crossed]
        below = [g for g in outside if "embedding" in g]
        above = sorted((g for g in outside if g not in below), key=lambda g: g == "all")
        unit = min(0.14, max(0.05, 2.8 / max(1, len(layers))))
        tall = max(1.0, _NAMED / unit)
        apart = _APART * tall
        rows = {g: tall * i for i, g in enumerate(below)}
        start = tall * len(below) + apart * bool(below)
        rows |= {g: start + len(layers) + apart + tall * i for i, g in enumerate(above)}
        cells = {g: (0.0, at, float(max(1, len(modules))), tall) for g, at in rows.items()}
        for group, (layer, module) in crossed.items():
            up = layers.index(int(layer.removeprefix("layer ")))
            cells[group] = (float(modules.index(module)), start + up, 1.0, 1.0)
        return cls(layers, modules, rows, cells, unit)

    @property
    def top(self) -> float:
        """Upper end of the cells."""
        return max(y + height for _, y, _, height in self.cells.values())

    @property
    def height(self) -> float:
        """Height of a panel, in inches."""
        return self.top * self.unit

    def prepare(self, axes: Axes, name: str, *, left: bool) -> None:
        """Set names and limits, before the layout is computed."""
        axes.set(xlim=(0, max(1, len(self.modules))), ylim=(0, self.top), title=name)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=2, labelbottom=True, labelleft=left)
        axes.set_xticks([i + 0.5 for i in range(len(self.modules))], map(plain, self.modules))
        axes.tick_params(axis="x", labelrotation=90, labelsize=6.5)
        every = 1 if len(self.layers) <= _LABELS else 4 if len(self.layers) <= 4 * _LABELS else 8
        ticks = {at + self.cells[g][3] / 2: short_group(g) for g, at in self.rows.items()}
        first = min((cell[1] for g, cell in self.cells.items() if g not in self.rows), default=0.0)
        ticks |= {
            first + i + 0.5: str(layer) for i, layer in enumerate(self.layers) if i % every == 0
        }
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.tick_params(axis="y", labelsize=6.5)
        if left:
            axes.set_ylabel("layer")

    def fill(self, axes: Axes, cells: dict[str, tuple[float, bool]], scale: Normalize) -> None:
        """Fill the cells of one arm, once their size is known."""
        box = axes.get_window_extent()
        points = 72 / axes.figure.dpi
        wide, high = points * box.width / max(1, len(self.modules)), points * box.height / self.top
        longest = max((_em(_number(value)) for value, _ in cells.values()), default=1.0)
        size = min(_LARGEST, _FILLED * wide / longest, high / 1.05)
        for group, (value, unclear) in cells.items():
            x, y, width, height = self.cells[group]
            if math.isnan(value):
                continue
            face = SIGNED(scale(value))
            dark = _lightness(face) < _DARK
            look: dict[str, Any] = {
                "facecolor": face,
                "edgecolor": "white" if dark else "0.2",
                "lw": 0.0,
            }
            patch = Rectangle((x, y), width, height, hatch="/////" if unclear else None, **look)
            axes.add_patch(patch)
            patch.set_gid(group)
            if size >= _SMALLEST and not unclear:
                at: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": size}
                at |= {"color": "white" if dark else "black"}
                axes.text(x + width / 2, y + height / 2, _number(value), **at)


def _em(text: str) -> float:
    """Return the width of a text as drawn at size 1."""
    return float(TextPath((0, 0), text, size=1).get_extents().width)


def _number(value: float) -> str:
    """Format with two decimals and no leading zero: `−.12`, `1.00`."""
    text = f"{value:.2f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return (
        text.replace("0.", ".", 1).replace("-", "−") if abs(value) < 1 else text.replace("-", "−")
    )


def _lightness(colour: tuple[float, ...]) -> float:
    """Return Rec. 709 luma, between 0 and 1: a colour's lightness in grey."""
    red, green, blue = colour[:3]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _first_two(rows: Sequence[Row]) -> tuple[str, str] | None:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return (arms[0], arms[1]) if len(arms) > 1 else None


FIGURE = TableFigure(
    "Cosines by layer and module, and the difference of two arms.",
    ("arm", "moment", "group", "first", "second", "cosine"),
    lambda rows: draw(rows, checkpoints_of(rows)[-1], difference=_first_two(rows)),
    lambda rows, pair: draw(rows, checkpoints_of(rows)[-1], pair, _first_two(rows)),
)
