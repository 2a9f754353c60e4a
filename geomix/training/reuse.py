"""Results reused from other runs: their finished stages, and their numbers of steps."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomix.config.run import RunConfig, StageConfig
from geomix.data.plan import StagePlan, planned_steps
from geomix.models.load import LoadedModel, load_tokenizer
from geomix.models.meta import local_config
from geomix.runs.directory import RunDirectory, open_run
from geomix.runs.parts import FROM, parts_of
from geomix.training.checkpoint import FINAL, MANIFEST, Checkpoint, Position, check
from geomix.util.errors import UserError
from geomix.util.files import write_json
from geomix.util.reading import read_json

SHAPE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
"""Sizes that two models must share for one to resume where the other ended."""


@dataclass(frozen=True, slots=True)
class ReusedStage:
    """A finished stage of another run.

    Attributes:
        folder: of the stage.
        checkpoint: its end, validated.
        steps: number of its optimiser steps.
    """

    folder: Path
    checkpoint: Checkpoint
    steps: int


FILE = "elsewhere.json"
"""File with everything that a run reused from others at its start, so that it can resume alone."""


def settle(
    config: RunConfig, run: RunDirectory, arms: Mapping[str, RunDirectory]
) -> dict[str, Any]:
    """Return everything that a run reuses from others, as JSON: found once, then stored in the run.

    Args:
        config: the run.
        run: its folder.
        arms: the arms of the same experiment, by name.

    Returns:
        Under `steps` the numbers of steps, under `reused` the stages that are still to be reused.

    Raises:
        UserError: something does not exist, is unfinished, damaged, or has changed.
    """
    file = run.path / FILE
    if not file.exists():
        steps = steps_of_other_runs(config, arms)
        reused = {
            index: {**_described(found), "environment": environments(found.folder)}
            for index, found in reused_stages(config).items()
        }
        found: dict[str, Any] = {"steps": steps, "taken": reused}
        if steps or reused:
            write_json(file, found)
        return found
    found = read_json(file)
    for index, known in list(found["taken"].items()):
        known.setdefault("environment", [])  # earlier versions of geomix did not store it
        name = config.stage_name(int(index))
        if (run.stage_folder(int(index), name) / "checkpoints" / FINAL).is_dir():
            del found["taken"][index]  # it belongs to this run by now
        elif not _described(reused_stages(config)[int(index)]).items() <= known.items():
            raise UserError(
                f"stages[{index}].from {known['folder']}: not what it was when the run began; "
                "restore it or begin a new run"
            )
    return found


def _described(reused: ReusedStage) -> dict[str, Any]:
    manifest = (reused.checkpoint.path / MANIFEST).read_bytes()
    return {
        "folder": str(reused.folder),
        "steps": reused.steps,
        "sha256": hashlib.sha256(manifest).hexdigest(),
    }


def environments(folder: Path) -> list[dict[str, Any]]:
    """Return the environments in which a stage and those before it were trained, as far as known.

    Args:
        folder: of the stage; its run may have reused it from a third.
    """
    run, number = RunDirectory(folder.parents[1]), folder.name.split("-")[0]
    index = int(number) if number.isdecimal() else 0
    stored = read_json(run.path / FILE) if (run.path / FILE).is_file() else {}
    reused = stored.get("taken", {}).get(str(index))
    if reused is not None:
        return list(reused.get("environment", []))
    return [part for part in parts_of(run) if part[FROM]["stage"] <= index]


def reused_of(settled: Mapping[str, Any]) -> dict[int, ReusedStage]:
    """Return the stages that `settle` found, which it has validated."""
    return {
        int(index): ReusedStage(
            Path(found["folder"]),
            Checkpoint(Path(found["folder"]) / "checkpoints" / FINAL, Position(int(index) + 1)),
            found["steps"],
        )
        for index, found in settled["taken"].items()
    }


def check_fits(config: RunConfig, loaded: LoadedModel) -> None:
    """Reject reused stages of another model, before anything is trained.

    Raises:
        UserError: shapes or tokenizers differ.
    """
    for index, (folder, _) in _found(config).items():
        final = str(folder / "checkpoints" / FINAL)
        theirs, mine = local_config(final), loaded.model.config
        for name in SHAPE:
            one, other = getattr(theirs, name, None), getattr(mine, name, None)
            if one != other:
                raise UserError(
                    f"stages[{index}].from {folder}: a stage of another model, whose {name} is "
                    f"{one} where this run's is {other}"
                )
        if load_tokenizer(final).get_vocab() != loaded.tokenizer.get_vocab():
            raise UserError(
                f"stages[{index}].from {folder}: trained with another tokenizer than this model's"
            )


def reused_stages(config: RunConfig) -> dict[int, ReusedStage]:
    """Return the stages that a run reuses instead of training them, by index.

    Raises:
        UserError: there is no such stage, or it is unfinished or damaged.
    """
    return {
        index: ReusedStage(folder, check(folder / "checkpoints" / FINAL), steps)
        for index, (folder, steps) in _found(config).items()
    }


def reused_steps(config: RunConfig) -> dict[int, int]:
    """Return the number of optimiser steps of the reused stages, by index, without their weights.

    Raises:
        UserError: there is no such stage, or it is unfinished.
    """
    return {index: steps for index, (_, steps) in _found(config).items()}


def reused_folders(config: RunConfig) -> dict[int, Path]:
    """Return the folders of the reused stages, by index; raises as `reused_steps`."""
    return {index: folder for index, (folder, _) in _found(config).items()}


def _found(config: RunConfig) -> dict[int, tuple[Path, int]]:
    """Return folder and steps of the reused stages, by index."""
    return {
        index: _finished(f"stages[{index}].from", index, Path(stage.from_))
        for index, stage in enumerate(config.stages)
        if stage.from_ is not None
    }


def _finished(key: str, index: int, path: Path) -> tuple[Path, int]:
    if path.parent.name == "stages":
        folder, run = path, RunDirectory(path.parents[1])
        index = int(path.name.split("-")[0]) if path.name[:1].isdigit() else index
    else:
        run = _run_at(key, str(path))
        _one_arm(key, run)
        found = sorted((run.path / "stages").glob(f"{index}-*"))
        if not found:
            raise UserError(f"{key} {path}: that run has no stage {index + 1}")
        folder = found[0]
    if not (folder / "checkpoints" / FINAL).is_dir():
        raise UserError(f"{key} {folder}: not a finished stage (it holds no checkpoints/{FINAL})")
    read_json(folder / "data.json")
    return folder, run.steps_done().get(index, 0)


def _run_at(key: str, named: str) -> RunDirectory:
    try:
        return open_run(named)
    except UserError as error:
        raise UserError(f"{key} {error}") from None


def _one_arm(key: str, run: RunDirectory) -> None:
    arms = run.arms
    if arms != [run]:
        names = ", ".join(str(arm.path) for arm in arms)
        raise UserError(f"{key} {run.path}: that run has arms; name one of {names}")


def steps_of_other_runs(
    config: RunConfig, arms: Mapping[str, RunDirectory], skip: Collection[str] = ()
) -> dict[int, int]:
    """Return the number of steps of the stages that copy another run's, by index.

    Args:
        config: the run.
        arms: the arms of the same experiment, by name.
        skip: names of arms that will be trained before this one, which are left out.

    Raises:
        UserError: there is no such run or stage, or it is unfinished.
    """
    found: dict[int, int] = {}
    for index, stage in enumerate(config.stages):
        named = stage.stop.steps_of
        if named is None or named in skip:
            continue
        key = f"stages[{index}].stop.steps_of"
        run = arms[named] if named in arms else _run_at(key, named)
        _one_arm(key, run)
        if run.status()["state"] != "done":
            raise UserError(f"{key} {named}: that run is not finished; go on with it first")
        steps = run.steps_done().get(index, 0)
        if not steps:
            raise _none(index, named)
        found[index] = steps
    return found


def _none(index: int, named: str) -> UserError:
    key = f"stages[{index}].stop.steps_of"
    return UserError(f"{key} {named}: that run trained no stage {index + 1}")


def check_other_runs(arms: Mapping[str, RunConfig], *, hashes: bool = True) -> None:
    """Find what arms reuse from other runs, or from earlier arms, before any is trained.

    Args:
        arms: of an experiment.
        hashes: whether the weights of reused stages are read and compared with their hashes.

    Raises:
        UserError: something that they name does not exist, is unfinished or damaged.
    """
    before: list[str] = []
    for name, config in arms.items():
        reused_stages(config) if hashes else reused_steps(config)
        own = [stage.stop.steps_of for stage in config.stages]
        late = [arm for arm in own if arm in arms and arm not in before]
        if late:
            raise UserError(
                f"arm {name}: stop.steps_of: arm '{late[0]}' is not trained before it; "
                "change their order"
            )
        steps_of_other_runs(config, {}, skip=before)
        before.append(name)


def with_steps(
    arms: Mapping[str, RunConfig], plans: Mapping[str, Sequence[StagePlan]]
) -> dict[str, RunConfig]:
    """Write the numbers of steps that arms copy from other runs into `stop.steps`.

    Steps copied from an earlier arm are those that it plans, which a rule may end earlier; a reused
    stage has those that it took.

    Args:
        arms: of an experiment.
        plans: of the stages of each arm.

    Raises:
        UserError: something that they name does not exist or is unfinished.
    """
    found: dict[str, RunConfig] = {}
    for name, config in arms.items():
        known = steps_of_other_runs(config, {}, skip=found)
        for index, stage in enumerate(config.stages):
            named = stage.stop.steps_of
            if named is None or named not in found:
                continue
            if index >= len(plans[named]):
                raise _none(index, named)
            known[index] = planned_steps(found[named].stages[index], plans[named][index])
        known |= reused_steps(config)
        stages = [_with(stage, known.get(i)) for i, stage in enumerate(config.stages)]
        found[name] = config.model_copy(update={"stages": stages})
    return found


def _with(stage: StageConfig, steps: int | None) -> StageConfig:
    if steps is None:
        return stage
    return stage.model_copy(update={"stop": stage.stop.model_copy(update={"steps": steps})})
