"""How much of D_A is still known along training, beside its angles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomix.analyze.angles import ArmAngles, over_seeds
from geomix.reading import expect
from geomix.run import Run


def retention_rows(arms: Sequence[ArmAngles], name: str = "D_A") -> list[dict[str, Any]]:
    """Exact match of a set, %: every arm and step at which all its runs have measured it.

    Args:
        arms: their runs' `metrics.jsonl` are read.
        name: of the set.

    Returns:
        Tidy rows: arm, stage, step, set, exact_match (mean over seeds), half_width (Student's 95 %,
        nan with one seed), n.
    """
    rows = []
    for arm in arms:
        found = [_measured(Run(Path(run)), name) for run in arm.runs]
        shared = [place for place in found[0] if all(place in one for one in found)]
        for stage, step in sorted(shared):
            mean, half = over_seeds(np.array([one[stage, step] for one in found]))
            at = {"arm": arm.arm, "stage": stage, "step": step, "set": name}
            rows.append({**at, "exact_match": mean, "half_width": half, "n": len(found)})
    return rows


def _measured(run: Run, name: str) -> dict[tuple[int, int], float]:
    if not run.metrics_file.is_file():
        return {}
    found = {}
    for line in run.metrics():
        if line.get("event") == "evaluation" and line.get("set") == name:
            numbers: list[Any] = [line.get(key) for key in ("stage", "step", "exact_match")]
            expect(run.metrics_file, "stage, step and exact_match, numbers", _are_numbers(numbers))
            found[numbers[0], numbers[1]] = float(numbers[2])
    return found


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
