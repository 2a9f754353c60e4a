"""Common style of all figures, and files that are byte-identical for identical figures."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

from geomix.util.files import written_file

WIDTH = 7.0
"""Width of a page of two columns, in inches."""

COLUMN = 3.4
"""Width of one column, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can distinguish."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
"""Line styles, which like the markers repeat the colours, for print in grey."""

SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#08306b", "#4a86c5", "#f7f7f7", "#f7ad5c", "#dd7412"]
)
"""Diverging colour map for values on both sides of 0: blue below, near white at 0, orange above.
Colour-blind readers distinguish blue from orange. The blue end is darker, so that in grey print
values of one size still differ by their sign; if the sign matters, a figure prints it.

Blue and orange are told apart by colour-blind readers. The blue arm is the darker one, so that in
grey print values of one size still differ by their sign; where it matters a figure prints it."""


def arm_look(index: int) -> tuple[str, str, Any]:
    """Return colour, marker and dashes of an arm; no two of the first 49 share all three.

    Args:
        index: of the arm, from 0.
    """
    turn = index // len(COLOURS)
    shifted = (index + turn) % len(COLOURS)
    return COLOURS[index % len(COLOURS)], MARKERS[shifted], LINES[shifted]


_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "mathtext.fontset": "dejavusans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "ytick.minor.size": 1.5,
    "ytick.minor.width": 0.4,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,  # embedded TrueType: journals reject Type 3, and text stays text
    "pdf.use14corefonts": False,
    "svg.hashsalt": "geomix",
}


def style() -> AbstractContextManager[None]:
    """Return the context for drawing and saving a figure; it restores the caller's settings."""
    return matplotlib.rc_context(_STYLE)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Create an empty figure with a constrained layout and without global state.

    Args:
        height: inches.
        width: inches.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.025, h_pad=0.03, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Fix the figure's layout, so that every format and every drawing gets the same panels."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        # The solver orders its constraints by address: its last bit differs from call to call, and
        # an edge that lies between two pixels goes by that bit.
        drawn, given = (np.round(axes.get_position(which).extents, 9) for which in (False, True))
        axes.set_position(Bbox.from_extents(*given), which="original")
        axes.set_position(Bbox.from_extents(*drawn), which="active")


def save_drawing(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG (200 dpi), identical for the same figure; return both files.

    Args:
        figure: drawn by a function of this package.
        stem: folder and name, without a suffix.
    """
    pdf, png = (stem.with_name(f"{stem.name}.{ending}") for ending in ("pdf", "png"))
    with style():
        with written_file(pdf) as partial:
            figure.savefig(partial, format="pdf", metadata={"CreationDate": None})
        with written_file(png) as partial:
            figure.savefig(partial, format="png", dpi=200, metadata={"Software": None})
    return [pdf, png]


def save_figure(
    figure: Figure,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    name: str,
    caption: str = "",
) -> list[Path]:
    """Write a figure as PDF and PNG (200 dpi), its table as CSV, and its caption as text.

    Args:
        figure: drawn by a function of this package.
        rows: the tidy table; every row has the first one's keys. A nan becomes an empty field.
        folder: of the files, created if missing.
        name: of the files, without a suffix.
        caption: description; without one there is no text file.

    Returns:
        The files. The same figure and rows give the same bytes: no date is written.
    """
    table = folder / f"{name}.csv"
    pdf, png = save_drawing(figure, folder / name)
    with written_file(table) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0] if rows else [])
        writer.writerows([_field(value) for value in row.values()] for row in rows)
    if not caption:
        return [pdf, png, table]
    text = folder / f"{name}.txt"
    with written_file(text) as partial:
        partial.write_text(textwrap.fill(caption, 80) + "\n", encoding="utf-8")
    return [pdf, png, table, text]


def _field(value: Any) -> Any:
    # repr gives back the same float; str(numpy scalar) need not.
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return value
