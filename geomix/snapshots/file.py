"""Snapshots on disk: one HDF5 file each, complete whenever it exists.

    /                         attributes: format, schema, versions, stage, step, reduction, what it
                              is of (`geomix.snapshots.schema.ORIGIN`),
                              coverage, path (`recorded`, or why not), …, and `complete`, last
    /probes/<set>/            attribute sha256, of the token ids and labels; coordinates: example,
                              edge, position, kept_position, layer, feature
        loss, exact           (example)
        offsets               (edge): example i owns positions offsets[i] to offsets[i + 1]
        positions, targets    (position)
        activations           (kept_position, layer, feature), absent if none are kept
        gradients             (kept_position, layer, feature), absent if none are kept
        lens_rank             (kept_position, layer), absent without `record.lens`
        lens_logprob          (kept_position, layer), absent without `record.lens`
        sketches              (example, parameter, entry), with attribute seed, coordinates of their
                              own; absent without `record.sketches`
    /probes/<set>/modules/<module>/     coordinates: kept_position, feature
        activations           (kept_position, feature): its output
        gradients             (kept_position, feature)
    /parameters/              coordinates: parameter, set, other_set (their names)
        size, layer, module   (parameter)
        unreached             (parameter, set): no gradient leads there, it counts as zero
        inner_products        (parameter, set, other_set)
        inner_products_adam   (parameter, set, other_set), with attributes stage, step and eps of
                              the second moments; absent before Adam's first step
    /path/                    coordinates: parameter, set, node, part (their names); absent without
                              `record.midpoints` and where no segment of the path ends
        products              (parameter, set, node, part), with attributes from_step, to_step
        pairs                 (parameter, set, pair_node, part), likewise, from two snapshots
                              before; absent without `record.pairs`, at the stage's first piece and
                              at the first one after training was interrupted
    /gradients/<set>/         coordinates: axis<i>_<n>, of the parameters' axes; absent without
                              `record.gradients`
        <parameter>           of the parameter's shape, float32

Every dimension is an HDF5 dimension scale, so that `xarray.open_dataset(path, group="probes/d_a",
engine="h5netcdf")` shows labelled axes. Numbers, coordinates too, carry a checksum (Fletcher-32)
and no compression: gradients are noise. HDF5 has none for texts; their hash is an attribute of the
file (`geomix.util.hdf5.text_hash`).

Shapes are those of `geomix.snapshots.schema`.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from geomix.runs.directory import snapshot_position
from geomix.snapshots.checks import check_shapes
from geomix.snapshots.groups import write_gradient, write_parameters, write_path, write_probes
from geomix.snapshots.heaps import check_heaps
from geomix.snapshots.integrity import Version, check_alone, open_snapshot, version_of
from geomix.snapshots.schema import (
    ORIGIN,
    AdamProducts,
    ModuleRecord,
    PathRecord,
    ProbeRecord,
    SketchRecord,
    Snapshot,
)
from geomix.snapshots.versions import FORMAT, OLDEST, SCHEMA, layer_numbers
from geomix.util.errors import UserError
from geomix.util.hdf5 import TEXTS, strings, text_hash, written_hdf5

_HEADER = 1 << 14
"""Most bytes that HDF5 needs to describe a dataset."""


def file_name(stage: int, step: int) -> str:
    """Return the name of a snapshot's file."""
    return f"stage{stage}-step{step:06d}.h5"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write one snapshot atomically; a file of that name is replaced."""
    whole = snapshot.gradients

    def gradients(file: Any) -> None:
        for name, gradient in (whole or {}).items():
            write_gradient(file.create_group(f"gradients/{name}"), snapshot.parameters, gradient)

    room = len(whole or ()) * (4 * int(snapshot.sizes.sum()) + _HEADER * len(snapshot.sizes))
    with written_hdf5(path, room, gradients if whole else None) as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        for package in ("geomix", "torch", "transformers", "nnsight"):
            file.attrs[f"{package}_version"] = _version(package)
        for name in _ROOT:
            file.attrs[name] = getattr(snapshot, name)
        for name, value in snapshot.origin.items():
            file.attrs[name] = value
        file.attrs["coverage"] = _coverage(len(snapshot.parameters), snapshot.trainable)
        file.attrs["path"] = "recorded" if snapshot.path else snapshot.no_path
        for name in snapshot.sets:
            group = file.create_group(f"probes/{name}")
            write_probes(group, snapshot.probes[name], snapshot.parameters)
            if name in snapshot.hashes:
                group.attrs["sha256"] = snapshot.hashes[name]
        write_parameters(file.create_group("parameters"), snapshot)
        if snapshot.path is not None:
            write_path(file.create_group("path"), snapshot, snapshot.path)


def read_snapshot(path: Path, activations: bool = True) -> Snapshot:
    """Read one snapshot.

    Args:
        path: the file; its whole gradients are not read.
        activations: whether to read the arrays at every position and the sketches, nearly all of
            the file.

    Raises:
        UserError: the file is missing, damaged, incomplete, not a snapshot, of a newer schema,
            built from other files, not the one of its name, or does not cover every trainable
            parameter.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such snapshot")
    version = version_of(path)
    with open_snapshot(path) as file:
        if version is None or version not in _SOUND:
            check_alone(path, file)
            check_heaps(path, file)
            _check(path, file)
            check_shapes(file)
        if version is not None:
            _SOUND.add(version)
        _check_name(path, file)
        return _read(file, activations)


_SOUND: set[Version] = set()
"""Files that this process found sound; a check takes five times as long as reading."""


_ROOT = ("stage", "stage_name", "step", "steps", "reduction", "layers", "tied_head", "trainable")


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _coverage(covered: int, trainable: int) -> str:
    return f"covered parameters {covered} of {trainable}"


def _check(path: Path, file: Any) -> None:
    if file.attrs.get("format") != FORMAT:
        raise UserError(f"{path}: an HDF5 file, but not a snapshot of geomix")
    if file.attrs["schema"] > SCHEMA:
        raise UserError(
            f"{path}: schema {file.attrs['schema']} is newer than the {SCHEMA} this version reads; "
            f"it was written by geomix {file.attrs['geomix_version']}, upgrade to that"
        )
    if file.attrs["schema"] < OLDEST:
        raise UserError(
            f"{path}: schema {file.attrs['schema']} is older than {OLDEST}, the oldest that this "
            "version reads; record it again"
        )
    if not file.attrs.get("complete"):
        raise UserError(f"{path}: incomplete, its writer was stopped; delete it and record again")
    covered, trainable = len(file["parameters/parameter"]), int(file.attrs["trainable"])
    if covered != trainable or file.attrs["coverage"] != _coverage(covered, trainable):
        raise UserError(
            f"{path}: holds {covered} parameters, of {trainable} trainable ones "
            f"('{file.attrs['coverage']}'); its gradients are not whole, record it again"
        )
    if text_hash(file) != file.attrs[TEXTS]:
        raise UserError(
            f"{path}: damaged, its texts are not those that were written; "
            "delete it and record it again"
        )


def _check_name(path: Path, file: Any) -> None:
    """Reject a snapshot under the name of another, such as a copy: readers rely on the names."""
    position = int(file.attrs["stage"]), int(file.attrs["step"])
    if snapshot_position(path.name) not in (None, position):
        raise UserError(
            f"{path}: holds step {position[1]} of stage {position[0] + 1}, which its name does not "
            f"say; name it {file_name(*position)} (files count stages from 0) or delete it"
        )


def _read(file: Any, activations: bool) -> Snapshot:
    parameters = file["parameters"]
    sets = strings(parameters["set"])
    return Snapshot(
        stage=int(file.attrs["stage"]),
        stage_name=str(file.attrs["stage_name"]),
        step=int(file.attrs["step"]),
        steps=int(file.attrs["steps"]),
        reduction=str(file.attrs["reduction"]),
        sets=sets,
        probes={name: _read_probes(file[f"probes/{name}"], activations) for name in sets},
        parameters=strings(parameters["parameter"]),
        sizes=parameters["size"][:],
        parameter_layers=layer_numbers(parameters["layer"]),
        parameter_modules=strings(parameters["module"]),
        inner_products=parameters["inner_products"][:],
        layers=int(file.attrs["layers"]),
        tied_head=bool(file.attrs["tied_head"]),
        trainable=int(file.attrs["trainable"]),
        unreached=parameters["unreached"][:].astype(np.bool_),
        adam=_read_adam(parameters),
        path=_read_path(file),
        no_path="" if "path" in file else str(file.attrs["path"]),
        origin={n: int(v) if n == "seed" else str(v) for n, v in _attributes(file, *ORIGIN)},
        hashes={n: str(v) for n in sets for _, v in _attributes(file[f"probes/{n}"], "sha256")},
    )


def _attributes(group: Any, *names: str) -> list[tuple[str, Any]]:
    """Return the existing attributes among the names."""
    return [(name, group.attrs[name]) for name in names if name in group.attrs]


def _read_adam(parameters: Any) -> AdamProducts | None:
    if "inner_products_adam" not in parameters:
        return None
    found = parameters["inner_products_adam"]
    stage, step = int(found.attrs["stage"]), int(found.attrs["step"])
    return AdamProducts(found[:], stage, step, float(found.attrs["eps"]))


def _read_path(file: Any) -> PathRecord | None:
    if "path" not in file:
        return None
    found = file["path/products"]
    first, last = int(found.attrs["from_step"]), int(found.attrs["to_step"])
    path = PathRecord(found[:], strings(file["path/part"]), first, last)
    if "pairs" not in file["path"]:
        return path
    pair = file["path/pairs"]
    return replace(path, pair=pair[:], pair_from_step=int(pair.attrs["from_step"]))


def _read_probes(group: Any, activations: bool) -> ProbeRecord:
    wanted = activations and "activations" in group
    return ProbeRecord(
        loss=group["loss"][:],
        exact=group["exact"][:].astype(np.bool_),
        offsets=group["offsets"][:],
        positions=group["positions"][:],
        targets=group["targets"][:],
        activations=group["activations"][:] if wanted else None,
        gradients=group["gradients"][:] if wanted else None,
        lens_rank=group["lens_rank"][:] if wanted and "lens_rank" in group else None,
        lens_logprob=group["lens_logprob"][:] if wanted and "lens_rank" in group else None,
        modules={
            name: ModuleRecord(module["activations"][:], module["gradients"][:])
            for name, module in (group.get("modules", {}) if wanted else {}).items()
        },
        sketches=_read_sketches(group) if activations else None,
    )


def _read_sketches(group: Any) -> SketchRecord | None:
    if "sketches" not in group:
        return None
    found = group["sketches"]
    return SketchRecord(found[:], int(found.attrs["seed"]))
