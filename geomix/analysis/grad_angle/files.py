"""Files of the table of angles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from geomix.analysis.grad_angle.contrasts import contrasts, secant_rows
from geomix.analysis.grad_angle.pair import Pair
from geomix.analysis.grad_angle.result import ArmAngles, GradAngle
from geomix.measures.cosine import cosines, norms
from geomix.util.files import write_json
from geomix.util.hdf5 import put, scale, written_hdf5

SCHEMA_VERSION = 3


def to_json(
    result: GradAngle, notes: Sequence[str], examples: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the whole result and its notes as JSON values; nan becomes null.

    The key `sets` exists if others than D_A and D_B are compared.

    Args:
        result: the angles.
        notes: notes on them.
        examples: the tables of each arm's single examples.
    """
    return {
        "analysis": "grad_angle",
        "schema_version": SCHEMA_VERSION,
        "runs": list(result.runs),
        "by": result.by,
        "metric": result.metric,
        **({} if result.pair == Pair() else {"sets": list(result.pair.names)}),
        "groups": list(result.groups),
        "arms": {
            arm.arm: {
                "runs": list(arm.runs),
                "seeds": list(arm.seeds),
                "moments": dict(zip(arm.labels, arm.sources, strict=True)),
                "probes": {name: {"n": n, "of": of} for name, (n, of) in arm.probes.items()},
            }
            for arm in result.arms
        },
        "arms_without_snapshots": list(result.missing),
        "notes": list(notes),
        "rows": [_plain(asdict(row)) for row in result.rows()],
        "contrasts": [_plain(asdict(row)) for row in contrasts(result)],
        "secants": [_plain(row) for row in secant_rows(result)],
        "examples": dict(examples or {}),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(
    result: GradAngle,
    notes: Sequence[str],
    folder: Path,
    examples: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the result as `grad_angle.h5` (arrays) and `grad_angle.json` (the tidy tables).

    Args:
        result: its grouping, metric and number of runs are part of the names.
        notes: on the numbers.
        folder: the run's analysis folder.
        examples: as in `to_json`.
    """
    arrays, table = (folder / f"{result.stem}.{ending}" for ending in ("h5", "json"))
    with written_hdf5(arrays) as file:
        file.attrs["analysis"] = "grad_angle"
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["runs"] = list(result.runs)
        file.attrs["by"] = result.by
        file.attrs["metric"] = result.metric
        if result.pair != Pair():
            file.attrs["sets"] = list(result.pair.names)
        for arm in result.arms:
            _write_arm(file.create_group(arm.arm), arm, result)
    write_json(table, to_json(result, notes, examples))
    return [arrays, table]


def _write_arm(group: h5py.Group, arm: ArmAngles, result: GradAngle) -> None:
    """Write a group per arm with labelled axes; `xarray.open_dataset(path, group=arm)` reads it."""
    inner = result.grouped_inner(arm)
    cosine = cosines(inner)
    scale(group, "run", arm.runs, "folder of the run")
    scale(group, "moment", arm.labels, "moment of training")
    scale(group, "group", result.groups, "of parameters; the first is the whole model")
    scale(group, "direction", arm.directions, "whose gradient, or the update")
    scale(group, "other", arm.directions, "likewise")
    moment, one = ("moment",), ("run", "moment", "group", "direction")
    pair = (*one, "other")
    put(group, "seed", np.array(arm.seeds), ("run",), units="1", text="of the run")
    stages = np.array([m.stage for m in arm.checkpoints])
    put(group, "stage", stages, moment, units="1", text="index from 0")
    steps = np.array([m.step for m in arm.checkpoints])
    put(group, "step", steps, moment, units="1", text="optimiser steps in the stage")
    put(group, "cosine", cosine, pair, units="1", text="of the angle between the two")
    angle = np.degrees(np.arccos(cosine))
    put(group, "angle", angle, pair, units="degree", text="between the two")
    units = "nat^2 per squared unit of the parameters"
    put(group, "inner_product", inner, pair, units=units, text="in the metric of the file")
    units = "nat per unit of the parameters"
    put(
        group,
        "norm",
        norms(inner),
        one,
        units=units,
        text="in the metric of the file; of an update, units of the parameters",
    )
