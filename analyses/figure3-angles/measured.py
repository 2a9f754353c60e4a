"""From the runs of one D_B to tidy tables and figures."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.contrasts import secant_rows
from geomix.analysis.grad_angle.measure import measure
from geomix.analysis.grad_angle.result import GradAngle
from geomix.analysis.retention import retention_rows
from geomix.api import Run
from geomix.figures import cosine_by_depth as grad_angle
from geomix.figures import over_training as along
from geomix.figures import plane
from geomix.figures.style import style

EARLY = ("A", "+4")
"""Moments whose angle with the update is measured."""

PAIRS = (("D_A", "D_B"), ("D_B", "held-out"), ("D_A", "update"), ("held-out", "update"))


def measure_all(second: str, runs: Sequence[Run], folder: Path) -> None:
    """Measure the runs of one D_B, and write its tables and figures.

    Args:
        second: what D_B is.
        runs: one a seed, each with all arms.
        folder: where the files go.
    """
    record = measure(runs, Asked(source="record"))
    weights = measure(runs, Asked(at=EARLY, source="weights"), print)
    seen = {moment for arm in weights.arms for moment in arm.labels}
    rows = [row for row in _cosines(record) if row["moment"] not in seen]
    _write(folder / f"angles-{second}.csv", second, [*rows, *_cosines(weights)])
    _write(folder / f"layers-{second}.csv", second, list(_layers(weights)))
    secants = [row for row in secant_rows(weights) if row["group"] == "all"]
    _write(folder / f"secants-{second}.csv", second, secants)
    _write(folder / f"retention-{second}.csv", second, list(_ends(runs)))
    _figures(second, weights, record, folder)


def measure_adam(second: str, runs: Sequence[Run], folder: Path) -> None:
    """Return the same cosines at θ_A+4 in Adam's metric; arguments as in `measure_all`."""
    adam = measure(runs, Asked(at=("+4",), metric="adam"), print)
    _write(folder / f"adam-{second}.csv", second, list(_cosines(adam)))


def _cosines(result: GradAngle) -> Iterator[dict[str, Any]]:
    """Return the whole model's cosines, one row per seed."""
    for row in result.rows():
        if row.group != "all" or (row.first, row.second) not in PAIRS:
            continue
        (arm,) = (arm for arm in result.arms if arm.arm == row.arm)
        for seed, value in zip(arm.seeds, row.values, strict=True):
            yield {
                "arm": row.arm,
                "seed": seed,
                "moment": row.moment,
                "metric": row.metric,
                "first": row.first,
                "second_direction": row.second,
                "cosine": value,
                "mean_norm_first": row.norm_first,
                "mean_norm_second": row.norm_second,
            }


def _layers(result: GradAngle) -> Iterator[dict[str, Any]]:
    """cos(g_A, g_B) and cos(g_A, u) by layer at θ_A+4, a row a seed."""
    for row in result.rows("layer"):
        if row.moment != "θ_A+4" or (row.first, row.second) not in PAIRS[::2]:
            continue
        (arm,) = (arm for arm in result.arms if arm.arm == row.arm)
        at = {"arm": row.arm, "group": row.group, "second_direction": row.second}
        for seed, value in zip(arm.seeds, row.values, strict=True):
            yield at | {"seed": seed, "cosine": value}


def _ends(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Exact match at the end of each stage, a row a seed, arm and set."""
    for run in runs:
        for arm in run.arms:
            for line in arm.metrics():
                if line["event"] == "evaluation" and line["moment"] == "end":
                    yield {
                        "arm": arm.name,
                        "seed": arm.resolved()["config"]["seed"],
                        "stage": line["stage"],
                        "set": line["set"],
                        "exact_match": line["exact_match"],
                    }


def _figures(second: str, weights: GradAngle, record: GradAngle, folder: Path) -> None:
    early = [asdict(row) for row in weights.rows()]
    whole = [row for row in early if row["group"] == "all"]
    labels = ["θ_A", "θ_A+4"]
    _save(folder / f"plane-{second}.svg", plane.draw(whole, labels, ("D_A", "D_B", "update")))
    _save(folder / f"layers-{second}.svg", grad_angle.draw(early, labels))
    every = [asdict(row) for row in record.rows() if row.group == "all"]
    shown = ("D_B", "held-out")
    runs = [(arm.arm, [Run(Path(run)) for run in arm.runs]) for arm in record.arms]
    drawn = along.draw(every, retention_rows(runs), "cosine", log=True, others=shown)
    _save(folder / f"along-{second}.svg", drawn)


def _save(path: Path, figure: Any) -> None:
    with style():
        figure.savefig(path, format="svg", metadata={"Date": None})


def _write(path: Path, second: str, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["d_b", *rows[0]], lineterminator="\n")
        table.writeheader()
        table.writerows({"d_b": second} | row for row in rows)
