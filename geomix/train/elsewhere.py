"""What a run takes from other runs: their finished stages, and their numbers of steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from geomix.config import RunConfig
from geomix.errors import UserError
from geomix.reading import read_json
from geomix.run import Run, open_run
from geomix.train.checkpoint import FINAL, Checkpoint, check


@dataclass(frozen=True, slots=True)
class Taken:
    """A finished stage of another run.

    Attributes:
        folder: of the stage.
        checkpoint: its end, checked.
        steps: optimiser steps that it took.
    """

    folder: Path
    checkpoint: Checkpoint
    steps: int


def taken_stages(config: RunConfig) -> dict[int, Taken]:
    """The stages that a run takes from others instead of training them, by index.

    Raises:
        UserError: there is no such stage, or it is not finished or damaged.
    """
    return {
        index: _taken(f"stages[{index}].from", index, Path(stage.from_))
        for index, stage in enumerate(config.stages)
        if stage.from_ is not None
    }


def _taken(key: str, index: int, path: Path) -> Taken:
    if path.parent.name == "stages":
        folder, run = path, Run(path.parents[1])
        index = int(path.name.split("-")[0]) if path.name[:1].isdigit() else index
    else:
        run = open_run(path)
        _one_arm(key, run)
        found = sorted((run.path / "stages").glob(f"{index}-*"))
        if not found:
            raise UserError(f"{key} {path}: that run has no stage {index}")
        folder = found[0]
    if not (folder / "checkpoints" / FINAL).is_dir():
        raise UserError(f"{key} {folder}: not a finished stage (it holds no checkpoints/{FINAL})")
    checkpoint = check(folder / "checkpoints" / FINAL)
    read_json(folder / "data.json")
    return Taken(folder, checkpoint, run.steps_done().get(index, 0))


def _one_arm(key: str, run: Run) -> None:
    arms = run.arms
    if arms != [run]:
        names = ", ".join(str(arm.path) for arm in arms)
        raise UserError(f"{key} {run.path}: that run has arms; name one of {names}")


def steps_elsewhere(
    config: RunConfig, arms: Mapping[str, Run], skip: Collection[str] = ()
) -> dict[int, int]:
    """The steps of the stages that are to have as many as another run's, by index.

    Args:
        config: the run.
        arms: the arms of the same experiment, by name.
        skip: names that are left out: of arms that will be trained before this one.

    Raises:
        UserError: there is no such run or stage, or it is not finished.
    """
    found: dict[int, int] = {}
    for index, stage in enumerate(config.stages):
        named = stage.stop.steps_of
        if named is None or named in skip:
            continue
        key = f"stages[{index}].stop.steps_of"
        run = arms[named] if named in arms else open_run(named)
        _one_arm(key, run)
        if run.status()["state"] != "done":
            raise UserError(f"{key} {named}: that run is not finished; go on with it first")
        steps = run.steps_done().get(index, 0)
        if not steps:
            raise UserError(f"{key} {named}: that run trained no stage {index}")
        found[index] = steps
    return found
