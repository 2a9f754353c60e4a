"""Figures, one function each: from a tidy table to a matplotlib figure and its CSV.

Figures do not know runs. Those drawn from one table are registered here: `geomix figure NAME
TABLE.csv` redraws them. Another package adds one (a `geomix.figures.table.TableFigure`) through an
entry point of the group `geomix.figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.figures.table import TableFigure

_HERE = "geomix.figures"

FIGURES: Registry[TableFigure] = Registry(
    "figure",
    "geomix.figures",
    {
        "cosine-by-depth": f"{_HERE}.cosine_by_depth:FIGURE",
        "cosine-row": f"{_HERE}.cosine_row:FIGURE",
        "curvature": f"{_HERE}.curvature:FIGURE",
        "delta-parts": f"{_HERE}.delta_parts:FIGURE",
        "forgetting-path": f"{_HERE}.forgetting_path:FIGURE",
        "kl-law": f"{_HERE}.kl_law:FIGURE",
        "layer-module": f"{_HERE}.layer_module:FIGURE",
        "pairwise": f"{_HERE}.pairwise:FIGURE",
        "path-factors": f"{_HERE}.path_factors:FIGURE",
        "plane": f"{_HERE}.plane:FIGURE",
        "reach": f"{_HERE}.reach:FIGURE",
        "relearn": f"{_HERE}.relearn:FIGURE",
        "retention-law": f"{_HERE}.retention_law:FIGURE",
        "scorecard": f"{_HERE}.scorecard:FIGURE",
        "stage2-condition": f"{_HERE}.stage2_condition:FIGURE",
    },
)
"""Figures drawn from one table, by their name for `geomix figure`."""
