"""What a configuration would do: stages, exact counts and steps, and what they would cost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from geomix.config import RunConfig
from geomix.config_file import Experiment
from geomix.config_train import stop_text
from geomix.console import Console
from geomix.data.example import Example
from geomix.data.probes import asks_familiarity, evaluation_sets, probe_sets
from geomix.data.registry import reading_once
from geomix.data.stage import MIXED, REPLAY, StagePlan, plan_stages, planned_steps
from geomix.errors import UserError
from geomix.record.schedule import snapshots
from geomix.terminal import echo_json, plain_table

MOST = 1_000_000
"""Examples of one set that a dry run counts; so many are read or generated in some seconds."""

Planned = tuple[list[StagePlan], dict[str, list[Example]], dict[str, list[Example]]]
"""An arm's stages, its probe sets and the sets that it evaluates besides."""


def show_plan(experiment: Experiment, *, as_json: bool = False) -> None:
    """Print the plan and what it would cost; nothing is downloaded but the data.

    Raises:
        UserError: a source cannot give what the configuration asks for, or a model that is here
            cannot be used.
    """
    console = Console()
    experiment, planned = plan(experiment)  # mistakes in the data show before torch is imported
    if not as_json:
        console.print(_plan_table(experiment, planned))
    from geomix.cost import cost_of, cost_table, in_words

    costs = cost_of(experiment, planned)
    if as_json:
        echo_json({**_facts(experiment, planned), "cost": costs})
        return
    console.print(cost_table(costs))
    free = shutil.disk_usage(Path.cwd()).free
    for line in in_words(costs, free):
        console.print(line, soft_wrap=not console.is_terminal)


def plan(experiment: Experiment) -> tuple[Experiment, dict[str, Planned]]:
    """The examples of every arm. Reads or generates the data, so its errors show here too.

    Returns:
        The experiment, with the steps that it takes from other runs or arms in `stop.steps`, and
        the examples by arm.

    Raises:
        UserError: a source cannot give what the configuration asks for, more is asked for than a
            dry run counts, or a run that is named is not there.
    """
    for config in experiment.arms.values():
        _countable(config)
    elsewhere = any(s.from_ or s.stop.steps_of for c in experiment.arms.values() for s in c.stages)
    if elsewhere:  # only then, since it imports torch
        from geomix.train.elsewhere import check_elsewhere, with_steps

        check_elsewhere(experiment.arms, hashes=False)
    found: dict[str, Planned] = {}
    with reading_once():
        for arm, config in experiment.arms.items():
            plans = plan_stages(config)
            found[arm] = (plans, probe_sets(config, plans), evaluation_sets(config, plans))
    if elsewhere:
        arms = with_steps(experiment.arms, {arm: stages for arm, (stages, _, _) in found.items()})
        experiment = replace(experiment, arms=arms)
    return experiment, found


def plan_table(experiment: Experiment) -> Table:
    """One row a stage of each arm; raises as `plan` does."""
    return _plan_table(*plan(experiment))


def _countable(config: RunConfig) -> None:
    """Refuse sets that would take minutes and the memory of the machine to count."""
    asked = {f"stages[{i}].data.limit": stage.data.limit for i, stage in enumerate(config.stages)}
    asked |= {f"evaluate.sets.{name}.limit": d.limit for name, d in config.evaluate.sets.items()}
    for i, stage in enumerate(config.stages):
        if stage.mix is not None:
            asked[f"stages[{i}].mix"] = int(stage.mix.ratio * stage.data.limit)
    for key, count in asked.items():
        if count > MOST:
            raise UserError(
                f"{key}: {count:,} examples; a dry run counts up to {MOST:,}, give it fewer"
            )


def _plan_table(experiment: Experiment, planned: dict[str, Planned]) -> Table:
    controls = any(s.mix and s.mix.passage_free for c in experiment.arms.values() for s in c.stages)
    asks = any(asks_familiarity(config) for config in experiment.arms.values())
    notes = ["In brackets: left out by the control."] * controls
    notes += ["Which facts are familiar is not asked here: that takes the model."] * asks
    table = plain_table(f"Plan of {experiment.name}", notes)
    replays = any(stage.replay for c in experiment.arms.values() for stage in c.stages)
    columns = ["arm", "stage", "own", "mixed in", *([REPLAY] * replays)]
    for column in (*columns, "epochs", "steps", "lr", "records"):
        table.add_column(column, justify="left" if column in ("arm", "stage") else "right")
    for arm, config in experiment.arms.items():
        for index, stage in enumerate(planned[arm][0]):
            facts = _stage_facts(experiment, arm, index, stage)
            table.add_row(arm if index == 0 else "", *_row(config, index, stage, facts, replays))
    return table


def _row(
    config: RunConfig, index: int, plan: StagePlan, facts: dict[str, Any], replays: bool
) -> tuple[str, ...]:
    stage = config.stages[index]
    taken = stage.from_ is not None
    passages = plan.sets.get(MIXED)
    mixed = "–" if passages is None else str(facts["mixed_in"])
    return (
        f"{index + 1} {facts['stage']}",
        f"{plan.name} {facts['own']}",
        f"({mixed})" if passages and not passages.trained else mixed,
        *(["+".join(map(str, facts["replay"].values())) or "–"] * replays),
        f"from {origin(stage.from_)}" if stage.from_ else facts["stop"],
        "–" if taken else "≤ " * facts["at_most"] + str(facts["steps"]),
        "–" if taken else f"{stage.train.lr:g}",
        str(facts["snapshots"]),
    )


def origin(path: str, most: int = 24) -> str:
    """A run, or a run's stage, in few characters: the end of its name, which tells runs apart.

    Args:
        path: of a run's folder, or of a stage within one.
        most: characters.
    """
    folder = Path(path)
    in_run = folder.parent.name == "stages"
    name = f"{folder.parents[1].name}/{folder.name}" if in_run else folder.name or path
    return name if len(name) <= most else "…" + name[1 - most :]


def _at_most(experiment: Experiment, config: RunConfig, index: int) -> bool:
    """Whether a stage may end before its planned steps, or the arm whose steps it takes may."""
    stage = config.stages[index]
    if stage.from_ is not None:
        return False
    other = experiment.arms.get(stage.stop.steps_of) if stage.stop.steps_of else None
    return stage.stop.early or (other is not None and _at_most(experiment, other, index))


def _stage_facts(experiment: Experiment, arm: str, index: int, plan: StagePlan) -> dict[str, Any]:
    """The exact counts of a stage."""
    config = experiment.arms[arm]
    stage, record = config.stages[index], config.record
    taken, steps = stage.from_ is not None, planned_steps(stage, plan)
    passages = plan.sets.get(MIXED)
    return {
        "stage": config.stage_name(index),
        "set": plan.name,
        "own": len(plan.own),
        "mixed_in": len(plan.mixed),
        "mixed_in_trained": bool(passages and passages.trained),
        "replay": plan.sets[REPLAY].source["examples"] if REPLAY in plan.sets else {},
        "from": stage.from_,
        "stop": stop_text(stage.stop),
        "steps": 0 if taken else steps,
        "at_most": _at_most(experiment, config, index),
        "lr": stage.train.lr,
        "snapshots": snapshots(record.at, index, steps, taken=taken) if record else 0,
    }


def _facts(experiment: Experiment, planned: dict[str, Planned]) -> dict[str, Any]:
    """The plan as JSON holds it; an arm's name is "" where there are none."""
    arms = {
        arm: [_stage_facts(experiment, arm, i, stage) for i, stage in enumerate(planned[arm][0])]
        for arm in experiment.arms
    }
    return {"name": experiment.name, "arms": arms}
