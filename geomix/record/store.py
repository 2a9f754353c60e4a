"""Snapshots on disk: one HDF5 file each, complete whenever it exists.

    /                         attributes: format, schema, versions, stage, step, reduction,
                              coverage, …, and `complete`, written last
    /probes/<set>/            coordinates: example, edge, position, kept_position, layer, feature
        loss, exact           (example)
        offsets               (edge): example i owns positions offsets[i] to offsets[i + 1]
        positions, targets    (position)
        activations           (kept_position, layer, feature), absent if none are kept
        gradients             (kept_position, layer, feature), absent if none are kept
    /parameters/              coordinates: parameter, set, other_set (their names)
        size, layer, module   (parameter)
        inner_products        (parameter, set, other_set)

Every dimension is an HDF5 dimension scale, so that `xarray.open_dataset(path, group="probes/d_a",
engine="h5netcdf")` shows labelled axes. Numbers carry a checksum (Fletcher-32) and no compression:
gradients are noise.

Shapes are those of `geomix.record.snapshot`.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from geomix.errors import UserError
from geomix.hdf5 import expect, put, scale, strings, written_hdf5
from geomix.record.snapshot import ProbeRecord, Snapshot

FORMAT = "geomix snapshot"
SCHEMA = 1
"""Raised when a reader of the older schema would misread the file."""
_STAGES = 26
"""Of a run, at most: the models at their ends are θ_A to θ_Z."""


def file_name(stage: int, step: int) -> str:
    """Name of a snapshot's file."""
    return f"stage{stage}-step{step:06d}.h5"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write one snapshot atomically; a file of that name is replaced."""
    with written_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        for package in ("geomix", "torch", "transformers", "nnsight"):
            file.attrs[f"{package}_version"] = _version(package)
        for name in _ROOT:
            file.attrs[name] = getattr(snapshot, name)
        file.attrs["coverage"] = _coverage(len(snapshot.parameters), snapshot.trainable)
        for name in snapshot.sets:
            _write_probes(file.create_group(f"probes/{name}"), snapshot.probes[name])
        _write_parameters(file.create_group("parameters"), snapshot)


def read_snapshot(path: Path, activations: bool = True) -> Snapshot:
    """Read one snapshot.

    Args:
        path: the file.
        activations: whether to read activations and their gradients, nearly all of the file.

    Raises:
        UserError: the file is missing, damaged, incomplete, not a snapshot, of a newer schema, or
            does not cover every trainable parameter.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such snapshot")
    try:
        # Without a lock, which some cluster file systems lack: a finished file never changes.
        with h5py.File(path, "r", locking=False) as file:
            _check(path, file)
            _check_shapes(file)
            return _read(file, activations)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: damaged, truncated or not HDF5; delete it and record it again ({reason})"
        ) from None


_DAMAGE = (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError)
"""What h5py and numpy raise on a file that is not as it was written."""

_ROOT = ("stage", "stage_name", "step", "steps", "reduction", "layers", "tied_head", "trainable")


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
    if "complete" not in file.attrs:
        raise UserError(f"{path}: incomplete, its writer was stopped; delete it and record again")
    covered, trainable = len(file["parameters/parameter"]), int(file.attrs["trainable"])
    if covered != trainable or file.attrs["coverage"] != _coverage(covered, trainable):
        raise UserError(
            f"{path}: holds {covered} parameters, of {trainable} trainable ones "
            f"('{file.attrs['coverage']}'); its gradients are not whole, record it again"
        )


def _check_shapes(file: Any) -> None:
    """Raise ValueError unless every array has the shape and kind, and every number the range."""
    stage, step, steps, layers = (int(file.attrs[n]) for n in ("stage", "step", "steps", "layers"))
    if not (0 <= stage < _STAGES and 0 <= step <= steps and layers >= 0):
        raise ValueError(f"stage {stage}, step {step} of {steps}, {layers} layers: impossible")
    parameters = file["parameters"]
    m, sets = len(parameters["parameter"]), strings(parameters["set"])
    s = len(sets)
    expect(parameters, "f", inner_products=(m, s, s))
    expect(parameters, "iu", size=(m,), layer=(m,))
    expect(parameters, "O", parameter=(m,), module=(m,), set=(s,), other_set=(s,))
    if not all(-1 <= layer <= layers for layer in parameters["layer"][:]):
        raise ValueError(f"a parameter lies outside the {layers} layers")
    for name in sets:
        group = file[f"probes/{name}"]
        n, p = len(group["loss"]), len(group["positions"])
        expect(group, "f", loss=(n,))
        expect(group, "iu", exact=(n,), offsets=(n + 1,), positions=(p,), targets=(p,))
        bounds = group["offsets"][:]
        if bounds[0] != 0 or bounds[-1] != p or (np.diff(bounds) < 0).any():
            raise ValueError(f"{group.name}: the offsets do not divide its {p} positions")
        if "activations" in group:
            kept, _, features = group["activations"].shape
            if kept > p:
                raise ValueError(f"{group.name}: {kept} of {p} positions have activations")
            shape = (kept, layers + 1, features)
            expect(group, "f", activations=shape, gradients=shape)


def _write_probes(group: Any, record: ProbeRecord) -> None:
    scale(group, "example", np.arange(len(record.loss)), "index in the probe set")
    scale(group, "edge", np.arange(len(record.offsets)), "boundary between examples")
    scale(group, "position", np.arange(len(record.positions)), "row of the ragged arrays")
    example, position = ("example",), ("position",)
    put(group, "loss", record.loss, example, units="nat", text="mean over the target tokens")
    exact = record.exact.astype(np.int8)
    dataset = put(group, "exact", exact, example, units="1", text="all target tokens right")
    dataset.attrs["dtype"] = "bool"  # how netCDF, which has no booleans, says so
    put(group, "offsets", record.offsets, ("edge",), units="1", text="first position of each")
    text = "index of the predicting token in the example"
    put(group, "positions", record.positions, position, units="1", text=text)
    text = "id of the target token predicted"
    put(group, "targets", record.targets, position, units="1", text=text)
    if record.activations is None or record.gradients is None:
        return
    dimensions = ("kept_position", "layer", "feature")
    kept, layers, features = record.activations.shape
    scale(group, "kept_position", np.arange(kept), "the first rows of `position`")
    scale(group, "layer", np.arange(layers), "0: input of the first layer; l: output of layer l")
    scale(group, "feature", np.arange(features), "dimension of the residual stream")
    text = "residual stream"
    put(group, "activations", record.activations, dimensions, units="1", text=text)
    text = "gradient of the set's mean loss with respect to the activations"
    put(group, "gradients", record.gradients, dimensions, units="nat", text=text)


def _write_parameters(group: Any, snapshot: Snapshot) -> None:
    scale(group, "parameter", snapshot.parameters, "name in model.named_parameters()")
    scale(group, "set", snapshot.sets, "probe set")
    scale(group, "other_set", snapshot.sets, "probe set")
    parameter = ("parameter",)
    put(group, "size", snapshot.sizes, parameter, units="1", text="elements")
    text = "layer from 0; -1 before the layers, their number behind them"
    put(group, "layer", snapshot.parameter_layers, parameter, units="1", text=text)
    text = "module within the layer"
    put(group, "module", snapshot.parameter_modules, parameter, units="", text=text)
    text = "inner products between the gradients of the sets' mean losses"
    dimensions = ("parameter", "set", "other_set")
    products = snapshot.inner_products
    put(group, "inner_products", products, dimensions, units="nat^2", text=text)


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
        parameter_layers=parameters["layer"][:],
        parameter_modules=strings(parameters["module"]),
        inner_products=parameters["inner_products"][:],
        layers=int(file.attrs["layers"]),
        tied_head=bool(file.attrs["tied_head"]),
        trainable=int(file.attrs["trainable"]),
    )


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
    )
