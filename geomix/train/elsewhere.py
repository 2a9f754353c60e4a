"""What a run takes from other runs: their finished stages, and their numbers of steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geomix.config import RunConfig, StageConfig
from geomix.data.stage import StagePlan, planned_steps
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
        index: Taken(folder, check(folder / "checkpoints" / FINAL), steps)
        for index, (folder, steps) in _found(config).items()
    }


def taken_steps(config: RunConfig) -> dict[int, int]:
    """The optimiser steps that those stages took, by index; their weights are not read.

    Raises:
        UserError: there is no such stage, or it is not finished.
    """
    return {index: steps for index, (_, steps) in _found(config).items()}


def _found(config: RunConfig) -> dict[int, tuple[Path, int]]:
    """Folder and steps of the stages that are taken, by index."""
    return {
        index: _finished(f"stages[{index}].from", index, Path(stage.from_))
        for index, stage in enumerate(config.stages)
        if stage.from_ is not None
    }


def _finished(key: str, index: int, path: Path) -> tuple[Path, int]:
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
    read_json(folder / "data.json")
    return folder, run.steps_done().get(index, 0)


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
            raise _none(index, named)
        found[index] = steps
    return found


def _none(index: int, named: str) -> UserError:
    return UserError(f"stages[{index}].stop.steps_of {named}: that run trained no stage {index}")


def check_elsewhere(arms: Mapping[str, RunConfig], *, hashes: bool = True) -> None:
    """Find what arms take from other runs, or from arms before them, before any is trained.

    Args:
        arms: of an experiment.
        hashes: whether the weights of taken stages are read and compared with their hashes.

    Raises:
        UserError: something that they name is not there, not finished or damaged.
    """
    before: list[str] = []
    for name, config in arms.items():
        taken_stages(config) if hashes else taken_steps(config)
        own = [stage.stop.steps_of for stage in config.stages]
        late = [arm for arm in own if arm in arms and arm not in before]
        if late:
            raise UserError(
                f"arm {name}: stop.steps_of: arm '{late[0]}' is not trained before it; "
                "change their order"
            )
        steps_elsewhere(config, {}, skip=before)
        before.append(name)


def with_steps(
    arms: Mapping[str, RunConfig], plans: Mapping[str, Sequence[StagePlan]]
) -> dict[str, RunConfig]:
    """The arms with all steps that they have from elsewhere written into `stop.steps`.

    As many as an arm before are those that it plans, which a rule may end earlier; a taken stage
    has those that it took.

    Args:
        arms: of an experiment.
        plans: of the stages of each arm.

    Raises:
        UserError: something that they name is not there or not finished.
    """
    found: dict[str, RunConfig] = {}
    for name, config in arms.items():
        known = steps_elsewhere(config, {}, skip=found)
        for index, stage in enumerate(config.stages):
            named = stage.stop.steps_of
            if named is None or named not in found:
                continue
            if index >= len(plans[named]):
                raise _none(index, named)
            known[index] = planned_steps(found[named].stages[index], plans[named][index])
        known |= taken_steps(config)
        stages = [_with(stage, known.get(i)) for i, stage in enumerate(config.stages)]
        found[name] = config.model_copy(update={"stages": stages})
    return found


def _with(stage: StageConfig, steps: int | None) -> StageConfig:
    if steps is None:
        return stage
    return stage.model_copy(update={"stop": stage.stop.model_copy(update={"steps": steps})})
