"""Data of one arm: its record if that suffices, else its kept weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geomix.analysis.base import Log
from geomix.analysis.checkpoints import NamedCheckpoint, chosen
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.pair import Pair
from geomix.analysis.measurement import Measurement
from geomix.analysis.parameter_groups import Layout, layout_of, same_parameters
from geomix.analysis.partial_results import Unfinished, arm_results
from geomix.runs.directory import RunDirectory
from geomix.snapshots.file import read_snapshot
from geomix.util.errors import UserError
from geomix.util.progress import during

if TYPE_CHECKING:
    from geomix.experiments.checkpoints import Revisit

_LONGEST = 120
"""Most characters of all requested checkpoints: a file's name has 255 bytes."""


@dataclass(frozen=True, slots=True)
class ArmMeasurements:
    """One arm of one seed.

    Attributes:
        run: its own.
        measurements: the requested measurements, by label, in the order of training.
        sources: the source of every existing checkpoint, by label.
    """

    run: RunDirectory
    measurements: dict[str, Measurement]
    sources: dict[str, str]


def check_asked(asked: Asked) -> None:
    """Reject impossible options before anything is loaded.

    Raises:
        UserError: an item is no checkpoint, there are more than a file's name can hold, or a record
            is requested to give what none holds.
    """
    chosen(asked.at)
    if len("_".join(asked.at)) > _LONGEST:
        raise UserError(
            f"--at: {len(asked.at)} moments; the files are called by them, so give at most "
            f"{_LONGEST} characters, or leave out --at for all"
        )
    if asked.source == "record" and asked.needs_weights:
        what = "--by head" if asked.by == "head" else "--metric adam"
        raise UserError(f"{what} --from record: a record does not hold it; leave out --from")


@during(lambda run, _: f"reading {run.path}")
def known_checkpoints(run: RunDirectory, asked: Asked) -> list[NamedCheckpoint]:
    """Return the checkpoints of a run's arms that are recorded or have weights; nothing is loaded.

    Raises:
        UserError: a file is damaged.
    """
    from geomix.analysis.past_checkpoints import named_checkpoints
    from geomix.experiments.arms import arm_of
    from geomix.runs.configs import stored_configs

    arms = [arm for arm in run.arms if arm.resolved_file.is_file()]
    found = (
        []
        if asked.needs_weights
        else [measurement.checkpoint for arm in arms for measurement in _recorded(arm, asked.sets)]
    )
    try:
        configs = {} if asked.source == "record" else stored_configs(run)
        for name, config in configs.items():
            if arm_of(run, name) in arms:
                found += named_checkpoints(arm_of(run, name), config)
    except UserError:  # `pasts_of` reports it, if the record alone does not suffice
        pass
    return sorted(set(found), key=lambda checkpoint: (checkpoint.stage, checkpoint.step))


def pasts_of(run: RunDirectory, asked: Asked, remarks: list[str]) -> dict[Path, Revisit]:
    """Return the arms of a run with usable weights, by folder.

    Args:
        run: with or without arms.
        asked: the options.
        remarks: receives why they are unusable, if the record suffices.

    Raises:
        UserError: they are needed, and the data or a model has changed.
    """
    from geomix.analysis.past_checkpoints import revisits
    from geomix.models.load import quiet_libraries

    quiet_libraries()
    if asked.source == "record":
        return {}
    if not asked.needs_weights and not any(_keeps_weights(arm) for arm in run.arms):
        return {}
    try:
        return {past.arm.path: past for past in revisits(run).values()}
    except UserError as error:
        if asked.needs_weights or not any(arm.snapshots() for arm in run.arms):
            raise
        remarks.append(f"Taken from the record alone, as the weights cannot be looked at: {error}")
        return {}


def _keeps_weights(arm: RunDirectory) -> bool:
    """Return whether a stage has ended, or weights within one were kept."""
    return any(arm.path.glob("stages/*/checkpoints/final")) or any(
        arm.path.glob("stages/*/weights/*")
    )


def arm_measurements(
    arm: RunDirectory,
    pasts: Mapping[Path, Revisit],
    asked: Asked,
    log: Log,
    layout: Layout | None = None,
    kept: Unfinished | None = None,
) -> ArmMeasurements:
    """Return an arm's measurements at the requested checkpoints.

    Args:
        arm: that has started.
        pasts: the arms of its run with usable weights, by folder.
        asked: the options.
        log: receives progress lines.
        layout: of the parameters to compare with, if there are any yet.
        kept: results of the same command before it was killed.

    Raises:
        UserError: a file is damaged, or its parameters differ from those of its first checkpoint or
            of the runs that it is compared with.
    """
    is_asked = chosen(asked.at)
    found: dict[str, Measurement] = {}
    there: dict[NamedCheckpoint, str] = {}
    for measurement in () if asked.needs_weights else _recorded(arm, asked.sets):
        there[measurement.checkpoint] = "record"
        if is_asked(measurement.checkpoint):
            _check_layout(arm, measurement, found.values(), layout)
            found[measurement.checkpoint.label] = measurement
    for measurement in _from_weights(arm, pasts, asked, there, kept or Unfinished()):
        log(f"{arm.path}: {measurement.checkpoint.label} is computed from its weights")
        _check_layout(arm, measurement, found.values(), layout)
        found[measurement.checkpoint.label] = measurement
    checkpoints = sorted(there, key=lambda checkpoint: (checkpoint.stage, checkpoint.step))
    in_order = {m.label: found[m.label] for m in checkpoints if m.label in found}
    return ArmMeasurements(arm, in_order, {m.label: there[m] for m in checkpoints})


def _from_weights(
    arm: RunDirectory,
    pasts: Mapping[Path, Revisit],
    asked: Asked,
    there: dict[NamedCheckpoint, str],
    kept: Unfinished,
) -> Iterable[Measurement]:
    """Measure requested checkpoints from kept weights; add all with weights to `there`."""
    if arm.path not in pasts:
        return
    from geomix.analysis.from_weights import measurements
    from geomix.analysis.past_checkpoints import adams, ignored, named_checkpoint

    past = pasts[arm.path]
    metric, of = None, []
    if asked.metric == "adam":
        found = next((v for one in pasts.values() if (v := adams(one)) is not None), None)
        if found is None:
            raise UserError(f"{arm.path}: no stage has ended, so there is no v̂ for --metric adam")
        metric, of = found[0], [found[1]]
    recorded = bool(there)
    is_asked = chosen(asked.at)

    def wanted(checkpoint: NamedCheckpoint) -> bool:
        """Return whether to compute; if a record suffices for stage 1, only on request."""
        later = checkpoint.stage > 0 or checkpoint.end
        return is_asked(checkpoint) and (later or not recorded or bool(asked.at))

    for checkpoint in (named_checkpoint(past, stored) for stored in past.checkpoints(ignored)):
        if wanted(checkpoint) or checkpoint not in there:
            there[checkpoint] = "weights"
    try:
        heads = asked.by == "head"
        results = arm_results(kept, past, {"heads": heads, "metric": asked.metric}, of)
        for measurement in measurements(past, wanted, results, heads=heads, metric=metric):
            _check_sets(str(arm.path), measurement.sets, asked.sets)
            yield measurement
    except UserError as error:
        if not recorded:
            raise
        raise UserError(f"{error}; --from record takes what the record holds") from None


def _recorded(arm: RunDirectory, needed: Sequence[str]) -> Iterable[Measurement]:
    """Yield the snapshots' contents as measurements; reject snapshots that lack needed sets."""
    first: Measurement | None = None
    for path in arm.snapshots():
        snapshot = read_snapshot(path, activations=False)
        _check_sets(str(path), snapshot.sets, needed)
        ends = snapshot.step == snapshot.steps
        checkpoint = NamedCheckpoint(snapshot.stage, snapshot.step, ends, snapshot.reduction)
        sets = snapshot.sets
        measurement = Measurement(
            checkpoint, layout_of(snapshot), sets, sets, snapshot.inner_products, None
        )
        first = first or measurement
        if measurement.sets != first.sets:
            raise UserError(f"{path}: its probe sets differ from those of the snapshots before it")
        yield measurement


def _check_layout(
    arm: RunDirectory,
    measurement: Measurement,
    before: Iterable[Measurement],
    compared: Layout | None,
) -> None:
    """Reject other parameters at once: later measurements take long to compute."""
    first = next(iter(before), None)
    if first is not None and not same_parameters(measurement.layout, first.layout):
        raise UserError(_other_parameters(arm.path, measurement, first))
    if compared is not None and not same_parameters(measurement.layout, compared):
        raise UserError(
            f"{arm.path}: its parameters are not those of the first arm's snapshots; "
            "arms that are compared must train one model"
        )


def _check_sets(where: str, sets: Sequence[str], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in sets]
    if absent:
        has = ", ".join(sets) or "none"
        default = tuple(needed) == Pair().names
        advice = "a run of two stages records both" if default else "give --sets two of these"
        raise UserError(f"{where}: no probe set {' and '.join(absent)} (it holds {has}); {advice}")


def _other_parameters(where: Path, here: Measurement, first: Measurement) -> str:
    return (
        f"{where}: stage {here.checkpoint.stage + 1} trains other parameters "
        f"({len(here.layout.parameters)} tensors) than stage {first.checkpoint.stage + 1} "
        f"({len(first.layout.parameters)}), and angles over "
        "different parameters cannot be compared; train the same ones in every stage "
        "(train.trainable, train.lora), or take the parameters that both have from "
        "open_run(…).records.inner_products"
    )
