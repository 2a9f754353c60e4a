"""Arms of another run that a configuration's arms mean by its folder: those of the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from geomix.config.run import RunConfig
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError


def with_named_arms(arms: Mapping[str, RunConfig]) -> dict[str, RunConfig]:
    """Write the folder of the arm of the same name into each `stages.N.from` of a run with arms.

    Args:
        arms: of an experiment; one without arms, "", is left as it is.

    Raises:
        UserError: a run has arms, but none of an arm's name; a line a stage and run.
    """
    lacking: dict[tuple[int, str], list[str]] = {}

    def named(arm: str, index: int, given: str) -> str:
        run = RunDirectory(Path(given))
        if not arm or not run.resolved_file.is_file() or run.arms == [run]:
            return given
        found = {theirs.name: theirs for theirs in run.arms}
        if arm not in found:
            lacking.setdefault((index, given), []).append(arm)
            return given
        return str(found[arm].path)

    found = {name: _renamed(name, config, named) for name, config in arms.items()}
    if lacking:
        raise UserError(*(_none(index, given, own) for (index, given), own in lacking.items()))
    return found


def as_stored(
    arms: Mapping[str, RunConfig], stored: Mapping[str, RunConfig]
) -> dict[str, RunConfig]:
    """Do as `with_named_arms` did when a run began; the other run may be gone by now.

    Args:
        arms: a configuration that is given again.
        stored: that of the run.
    """

    def named(arm: str, index: int, given: str) -> str:
        stages = stored[arm].stages if arm in stored else []
        was = stages[index].from_ if index < len(stages) else None
        return was if was == str(Path(given) / "arms" / arm) else given

    return {name: _renamed(name, config, named) for name, config in arms.items()}


def _renamed(arm: str, config: RunConfig, named: Callable[[str, int, str], str]) -> RunConfig:
    """Return an arm with the folder that `named` returns for arm, stage and given folder."""
    stages = [
        stage
        if stage.from_ is None
        else stage.model_copy(update={"from_": named(arm, index, stage.from_)})
        for index, stage in enumerate(config.stages)
    ]
    return config.model_copy(update={"stages": stages})


def _none(index: int, given: str, own: list[str]) -> str:
    quoted = ", ".join(f"'{arm}'" for arm in own)
    theirs = ", ".join(str(arm.path) for arm in RunDirectory(Path(given)).arms)
    several = len(own) > 1
    return (
        f"stages[{index}].from {given}: that run has no arm{'s' * several} {quoted}; give "
        f"{'each' if several else 'it'} a stages.{index}.from of its own, one of {theirs}, "
        "or null to train the stage"
    )
