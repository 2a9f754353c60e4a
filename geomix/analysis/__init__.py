"""From recorded runs to tables, findings and figures.

An analysis is a class (`geomix.analysis.base.Analysis`): it declares its options, measures opened
runs, and returns tables, findings and figures. The driver (`geomix.analysis.driver`) does the rest
for all of them. A new one is a file and a line here, or an entry point of another package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.analysis.base import Analysis

ANALYSES: Registry[type[Analysis[object, object]]] = Registry(
    "analysis",
    "geomix.analyses",
    {
        "grad-angle": "geomix.analysis.grad_angle:GradAngleAnalysis",
        "forgetting": "geomix.analysis.forgetting:ForgettingAnalysis",
        "delta2": "geomix.analysis.delta2:Delta2Analysis",
        "forgetting-path": "geomix.analysis.forgetting_path:ForgettingPathAnalysis",
        "curvature": "geomix.analysis.curvature:CurvatureAnalysis",
        "theory": "geomix.analysis.theory:TheoryAnalysis",
        "curve": "geomix.analysis.curve:CurveAnalysis",
        "relearn": "geomix.analysis.relearn:RelearnAnalysis",
        "kl-law": "geomix.analysis.kl_law:KLLawAnalysis",
    },
)
"""Every analysis by the name that `geomix analyze` gives it."""
