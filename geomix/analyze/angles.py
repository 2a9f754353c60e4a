"""The angles between the probe sets' gradients, by depth and over training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomix.analyze.groups import By, grouped
from geomix.analyze.moments import TrainingMoment
from geomix.atomic import write_json
from geomix.errors import UserError
from geomix.geometry.cosine import Floats, cosines, group_inner_products, norms
from geomix.hdf5 import written_hdf5
from geomix.reading import read_json
from geomix.record.snapshot import Snapshot
from geomix.record.store import read_snapshot
from geomix.run import Run

WHOLE = "all"
"""The group of all parameters: the whole model."""

NEEDED = ("D_A", "D_B")
"""Probe sets without which there is no angle to speak of."""

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class AngleRow:
    """One line of the tidy table: two sets' gradients in one group at one moment of one arm.

    Attributes:
        arm, stage, step, moment: where in training; `moment` is `θ_0`, `θ_A`, `θ_A+4`, `θ_B`, …
        reduction: of the mean loss whose gradients these are.
        group: `all`, or a layer, module or parameter.
        place: where the group stands in depth: for a parameter its layer, else the group itself.
        first, second: the two sets.
        cosine: in [−1, 1]; nan where a gradient is zero.
        angle_degrees: in [0, 180]; nan where the cosine is.
        inner_product: nats² per squared unit of the parameters.
        norm_first, norm_second: nats per unit of the parameters.
    """

    arm: str
    stage: int
    step: int
    moment: str
    reduction: str
    group: str
    place: str
    first: str
    second: str
    cosine: float
    angle_degrees: float
    inner_product: float
    norm_first: float
    norm_second: float


@dataclass(frozen=True, slots=True)
class ArmAngles:
    """One arm's recorded geometry.

    Attributes:
        arm: its name.
        sets: probe sets, length s.
        moments: recorded moments, length m, in the order of training.
        inner: `(m, g, s, s)` inner products of the sets' mean-loss gradients in each group.
        probes: for each set, how many examples were probed, and of how many; empty if unknown.
        seed: the arm's.
    """

    arm: str
    sets: tuple[str, ...]
    moments: tuple[TrainingMoment, ...]
    inner: Floats
    probes: dict[str, tuple[int, int]]
    seed: int


@dataclass(frozen=True, slots=True)
class GradAngle:
    """The angles of a whole run.

    Attributes:
        run: name of the run.
        by: what the parameters are grouped by.
        groups: names of the g groups: the whole model, then from the embedding to the head.
        places: for each group, where it stands in depth, as in the rows.
        arms: those that have snapshots.
        missing: names of the arms that have none.
    """

    run: str
    by: By
    groups: tuple[str, ...]
    places: tuple[str, ...]
    arms: tuple[ArmAngles, ...]
    missing: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Name of the result's files, without an ending."""
        return "grad_angle" if self.by == "layer" else f"grad_angle_by_{self.by}"

    @property
    def sets(self) -> list[str]:
        """The sets that any arm has: D_A, D_B, …, then D_M, then the held-out null."""
        last = {"D_M": 1, "held-out": 2}
        found = {name for arm in self.arms for name in arm.sets}
        return sorted(found, key=lambda name: (last.get(name, 0), name))

    def rows(self) -> Iterator[AngleRow]:
        """The tidy table: every arm, moment, group and pair of sets."""
        for arm in self.arms:
            cosine, norm = cosines(arm.inner), norms(arm.inner)
            angle = np.degrees(np.arccos(cosine))
            pairs = list(zip(*np.triu_indices(len(arm.sets), 1), strict=True))
            for m, moment in enumerate(arm.moments):
                where = (arm.arm, moment.stage, moment.step, moment.label, moment.reduction)
                for g, group in enumerate(zip(self.groups, self.places, strict=True)):
                    for i, j in pairs:
                        yield AngleRow(
                            *where,
                            *group,
                            arm.sets[i],
                            arm.sets[j],
                            cosine=float(cosine[m, g, i, j]),
                            angle_degrees=float(angle[m, g, i, j]),
                            inner_product=float(arm.inner[m, g, i, j]),
                            norm_first=float(norm[m, g, i]),
                            norm_second=float(norm[m, g, j]),
                        )

    def to_json(self, notes: Sequence[str]) -> dict[str, Any]:
        """The whole result and what must be said of it, as JSON values; nan becomes null."""
        return {
            "analysis": "grad_angle",
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "by": self.by,
            "groups": list(self.groups),
            "arms": [arm.arm for arm in self.arms],
            "arms_without_snapshots": list(self.missing),
            "probes": {
                arm.arm: {name: {"n": n, "of": of} for name, (n, of) in arm.probes.items()}
                for arm in self.arms
            },
            "notes": list(notes),
            "rows": [{k: _finite(v) for k, v in asdict(row).items()} for row in self.rows()],
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measure(run: Run, by: By = "layer") -> GradAngle:
    """Measure the angles between the probe sets' gradients in every snapshot of a run.

    Args:
        run: a run, with or without arms.
        by: how the parameters are grouped; the whole model is always the first group.

    Raises:
        UserError: there are no snapshots, a needed probe set is missing, a snapshot cannot be read,
            or the snapshots are not of one model.
    """
    recorded = [arm for arm in run.arms if arm.snapshots()]
    if not recorded:
        raise UserError(f"{run.path}: no snapshots; train with `record:` on")
    missing = tuple(arm.name for arm in run.arms if arm not in recorded)
    model = read_snapshot(recorded[0].snapshots()[0], activations=False)
    groups, index = grouped(model, by)
    places = groups
    if by == "parameter":
        layers, at = grouped(model, "layer")
        places = [layers[i] for i in at]
    arms = tuple(_measure(arm, model, index) for arm in recorded)
    return GradAngle(run.name, by, (WHOLE, *groups), (WHOLE, *places), arms, missing)


def _measure(arm: Run, model: Snapshot, index: NDArray[np.int64]) -> ArmAngles:
    moments: list[TrainingMoment] = []
    inner: list[Floats] = []
    sets: tuple[str, ...] = ()
    first: Snapshot | None = None
    for path in arm.snapshots():
        snapshot = read_snapshot(path, activations=False)
        first = first or snapshot
        _check(path, snapshot, sets or snapshot.sets)
        _check_parameters(path, snapshot, first, model)
        sets = snapshot.sets
        ends = snapshot.step == snapshot.steps
        moments.append(TrainingMoment(snapshot.stage, snapshot.step, ends, snapshot.reduction))
        whole = snapshot.inner_products.sum(axis=0, keepdims=True)
        inner.append(np.concatenate([whole, group_inner_products(snapshot.inner_products, index)]))
    seed = arm.resolved()["config"]["seed"]
    return ArmAngles(arm.name, sets, tuple(moments), np.stack(inner), _probe_counts(arm), seed)


def _check(path: Path, snapshot: Snapshot, sets: tuple[str, ...]) -> None:
    absent = [name for name in NEEDED if name not in snapshot.sets]
    if absent:
        has = ", ".join(snapshot.sets) or "none"
        raise UserError(
            f"{path}: no probe set {' and '.join(absent)} (it holds {has}); "
            "a run of two stages records both"
        )
    if snapshot.sets != sets:
        raise UserError(f"{path}: its probe sets differ from those of the snapshots before it")


def _check_parameters(path: Path, snapshot: Snapshot, first: Snapshot, model: Snapshot) -> None:
    """Angles are compared over one set of parameters: of a run's stages, and of its arms."""
    if not _same_parameters(snapshot, first):
        raise UserError(
            f"{path}: stage {snapshot.stage} trains other parameters ({len(snapshot.parameters)} "
            f"tensors) than stage {first.stage} ({len(first.parameters)}), and angles over "
            "different parameters cannot be compared; train the same ones in every stage "
            "(train.trainable, train.lora), or take the parameters that both have from "
            "open_run(…).records.inner_products"
        )
    if not _same_parameters(snapshot, model):
        raise UserError(
            f"{path}: its parameters are not those of the first arm's snapshots; "
            "arms that are compared must train one model"
        )


def _same_parameters(one: Snapshot, other: Snapshot) -> bool:
    return one.parameters == other.parameters and np.array_equal(one.sizes, other.sizes)


def _probe_counts(arm: Run) -> dict[str, tuple[int, int]]:
    if not arm.probes_file.exists():
        return {}
    probes = read_json(arm.probes_file)
    try:
        return {name: (int(probe["n"]), int(probe["of"])) for name, probe in probes.items()}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{arm.probes_file}: cannot be read ({error!r})") from None


def save(result: GradAngle, notes: Sequence[str], folder: Path) -> list[Path]:
    """Write the result as `grad_angle.h5` (arrays) and `grad_angle.json` (the tidy table).

    Args:
        result: grouped by layer, or else `_by_module` or `_by_parameter` is in the names.
        notes: what must be said of the numbers.
        folder: the run's analysis folder.
    """
    arrays, table = (folder / f"{result.stem}.{ending}" for ending in ("h5", "json"))
    with written_hdf5(arrays) as file:
        file.attrs["analysis"] = "grad_angle"
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["run"] = result.run
        file.attrs["by"] = result.by
        for arm in result.arms:
            _write_arm(file.create_group(arm.arm), arm, result.groups)
    write_json(table, result.to_json(notes))
    return [arrays, table]


def _write_arm(file: h5py.Group, arm: ArmAngles, groups: tuple[str, ...]) -> None:
    """One group an arm, with labelled axes: `xarray.open_dataset(path, group=arm)` shows them."""
    labels = {
        "moment": [moment.label for moment in arm.moments],
        "group": list(groups),
        "set": list(arm.sets),
        "other_set": list(arm.sets),
    }
    for name, values in labels.items():
        file.create_dataset(name, data=values, dtype=h5py.string_dtype()).make_scale(name)
    cosine = cosines(arm.inner)
    pair, one = ("moment", "group", "set", "other_set"), ("moment", "group", "set")
    arrays: list[tuple[str, Any, tuple[str, ...], str]] = [
        ("stage", [m.stage for m in arm.moments], ("moment",), "index from 0"),
        ("step", [m.step for m in arm.moments], ("moment",), "optimiser steps in the stage"),
        ("cosine", cosine, pair, "1"),
        ("angle", np.degrees(np.arccos(cosine)), pair, "degree"),
        ("inner_product", arm.inner, pair, "nat^2 per squared unit of the parameters"),
        ("norm", norms(arm.inner), one, "nat per unit of the parameters"),
    ]
    for name, values, axes, unit in arrays:
        data = file.create_dataset(name, data=np.asarray(values))
        data.attrs["units"] = unit
        for axis, label in enumerate(axes):
            data.dims[axis].label = label
            data.dims[axis].attach_scale(file[label])
    reductions = [m.reduction for m in arm.moments]
    data = file.create_dataset("reduction", data=reductions, dtype=h5py.string_dtype())
    data.dims[0].attach_scale(file["moment"])
