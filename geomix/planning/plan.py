"""Plan of a configuration: stages, exact counts and steps, and their cost."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from geomix.config.load import Experiment
from geomix.config.names import REPLAY
from geomix.config.run import RunConfig
from geomix.config.schedule import snapshots
from geomix.config.stage_names import stage_title
from geomix.config.training import stop_text
from geomix.data.example import Example
from geomix.data.plan import SourceSet, StagePlan, plan_stages, planned_steps
from geomix.data.probes import asks_familiarity, evaluation_sets, probe_sets
from geomix.data.remarks import remarks
from geomix.data.sources.select import reading_once
from geomix.data.sources.stand_in import FACTOID, StandIns, standing_in
from geomix.measures.scores import DEFAULT, chosen
from geomix.runs.named_arms import with_named_arms
from geomix.util.console import Console
from geomix.util.errors import Gathered, UserError
from geomix.util.progress import phase, telling
from geomix.util.terminal import echo_json, plain_table

MOST = 1_000_000
"""Most examples of one set that a dry run counts; so many are read or generated in seconds."""

Planned = tuple[list[StagePlan], dict[str, list[Example]], dict[str, list[Example]]]
"""An arm's stages, its probe sets and its additional evaluated sets."""


def show_plan(
    experiment: Experiment, *, gpus: int | None = None, gib: float | None = None, as_json: bool
) -> None:
    """Print whether it fits, the plan, and its cost; only data is downloaded.

    Data that cannot be reached is estimated from its limits.

    Args:
        experiment: the configuration.
        gpus: number of GPUs, one a process; None uses this machine.
        gib: GiB of memory of each.
        as_json: whether to print one JSON object.

    Raises:
        UserError: a source cannot give what the configuration requests, or a model that is here
            cannot be used.
    """
    longest = min(config.max_tokens for config in experiment.arms.values())
    with telling(), standing_in(longest) as absent:
        experiment, planned = plan(experiment)  # mistakes in the data show before torch is imported
        _check_models(experiment)
        from geomix.planning.answer import answer_lines, fits_of
        from geomix.planning.cost import cost_of, cost_table, in_words
        from geomix.planning.estimate import Arm
        from geomix.planning.node import EIGHT, GIB, Node
        from geomix.planning.savings import savings_of

        asked = None
        if gpus is not None or gib is not None:
            each = EIGHT.memory if gib is None else round(gib * GIB)
            asked = Node(1 if gpus is None else gpus, each)
        costs = cost_of(experiment, planned, asked.processes if asked else 1)
        arms = [Arm(config, *planned[name]) for name, config in experiment.arms.items()]
        fits = fits_of(arms, costs, asked)
    facts = _facts(experiment, planned)
    if as_json:
        facts |= {"estimated": absent.why, "fits": [fit.facts() for fit in fits], "cost": costs}
        echo_json(facts)
        return
    stages = [stage for arm in facts["arms"].values() for stage in arm]
    free = shutil.disk_usage(Path.cwd()).free
    steps, at_most = sum(s["steps"] for s in stages), any(s["at_most"] for s in stages)
    console = Console()

    def write(lines: list[str]) -> None:
        for line in lines:
            console.print(line, soft_wrap=not console.is_terminal)

    space = (costs["disk"] or 0) + (costs["disk_within"] or 0)
    savings = savings_of(dict(zip(experiment.arms, arms, strict=True))) if space > free else []
    write([*answer_lines(fits, costs, steps, at_most, free, savings), *_estimated(absent)])
    write([*(f"warning: {line}" for line in remarks_on(experiment, planned)), ""])
    write(_methods(experiment))
    write([f"Score {line}" for line in score_lines(experiment, planned)])
    console.print(_plan_table(experiment, planned, frozenset(absent.why)))
    console.print(cost_table(costs))
    write(in_words(costs))


def _methods(experiment: Experiment) -> list[str]:
    """Return a line for each method: where it acts, and its cost beyond plain training."""
    from geomix.training.methods import METHODS

    found: dict[str, None] = {}
    for config in experiment.arms.values():
        for index, stage in enumerate(config.stages):
            for given in stage.method:
                cost = METHODS[given.name].cost(given)
                takes = f"{cost.copies:g} more copies of the weights, {cost.passes:g} more passes"
                note = f"; {cost.note}" if cost.note else ""
                name = stage_title(index, config.stage_name(index))
                at = f"{given.name} (strength {given.strength:g})"
                found[f"Method of {name}: {at}: {takes} a step{note}"] = None
    return [*found]


def score_lines(experiment: Experiment, planned: Mapping[str, Planned]) -> list[str]:
    """Return a line for each requested score: its cost beside the evaluation's own pass."""
    found: dict[str, list[int]] = {}
    for name, config in experiment.arms.items():
        plans, _, extra = planned[name]
        sets = [part.examples for plan in plans for part in plan.sets.values()]
        times = 1 + len(plans)
        for score in chosen(config.evaluate.scores)[len(DEFAULT) :]:
            if score.part_of:
                continue
            costs = [score.cost(examples) for examples in (*sets, *extra.values())]
            total = found.setdefault(score.name, [0, 0])
            total[0] += times * sum(cost.prompts for cost in costs)
            total[1] += times * sum(cost.answers for cost in costs)
    return [
        f"{name}: at the boundaries of all stages {answers:,} more answers, forward alone, after "
        f"{prompts:,} prompts"
        if answers or prompts
        else f"{name}: no pass of its own"
        for name, (prompts, answers) in found.items()
    ]


def _check_models(experiment: Experiment) -> None:
    """Reject the path of a model that does not exist and whose name is not a shipped shape's."""
    from geomix.models.hub import no_folder
    from geomix.models.meta import stand_in_shape

    mistakes = Gathered()
    for config in experiment.arms.values():
        with mistakes.each():
            if (why := no_folder(config.model)) and stand_in_shape(config.model) is None:
                raise UserError(f"{config.location('model')}: {why}")
    mistakes.check()


def _estimated(absent: StandIns) -> list[str]:
    """Return a line on the data that is not here."""
    if not absent.why:
        return []
    return [
        f"≈ {', '.join(absent.why)}: cannot be read here; counted as many as asked for, a",
        f"  passage of its words, a fact of {sum(FACTOID)} words, anything else of max_tokens",
    ]


def remarks_on(experiment: Experiment, planned: dict[str, Planned]) -> list[str]:
    """Return oddities of the data of any arm, each once."""
    found = (remarks(experiment.arms[arm], *parts) for arm, parts in planned.items())
    return list(dict.fromkeys(line for lines in found for line in lines))


def plan(experiment: Experiment) -> tuple[Experiment, dict[str, Planned]]:
    """Plan the examples of every arm, reading or generating the data, so its errors show here.

    Returns:
        The experiment, with the steps copied from other runs or arms in `stop.steps`, and the
        examples by arm.

    Raises:
        UserError: a source cannot give what the configuration requests, more is requested than a
            dry run counts, or a named run does not exist.
    """
    for config in experiment.arms.values():
        _countable(config)
    other_runs = any(s.from_ or s.stop.steps_of for c in experiment.arms.values() for s in c.stages)
    if other_runs:  # only then, since it imports torch
        from geomix.training.reuse import check_other_runs, with_steps

        experiment = replace(experiment, arms=with_named_arms(experiment.arms))
        check_other_runs(experiment.arms, hashes=False)
    found: dict[str, Planned] = {}
    mistakes = Gathered()
    with reading_once():
        for arm, config in experiment.arms.items():
            with phase(f"reading the data of {arm or config.name}"), mistakes.each():
                plans = plan_stages(config)
                found[arm] = (plans, probe_sets(config, plans), evaluation_sets(config, plans))
    mistakes.check()
    if other_runs:
        arms = with_steps(experiment.arms, {arm: stages for arm, (stages, _, _) in found.items()})
        experiment = replace(experiment, arms=arms)
    return experiment, found


def plan_table(experiment: Experiment) -> Table:
    """Return the table with one row a stage of each arm; raises as `plan` does."""
    return _plan_table(*plan(experiment))


def _countable(config: RunConfig) -> None:
    """Reject sets that would take minutes and the memory of the machine to count."""
    asked = {f"stages[{i}].data.limit": stage.data.limit for i, stage in enumerate(config.stages)}
    asked |= {f"evaluate.sets.{name}.limit": d.limit for name, d in config.evaluate.sets.items()}
    for i, stage in enumerate(config.stages):
        if stage.data.limit is not None and (mixes := stage.mixes.values()):
            asked[f"stages[{i}].mix"] = int(sum(mix.ratio for mix in mixes) * stage.data.limit)
    for key, count in asked.items():
        if count is not None and count > MOST:
            raise UserError(
                f"{key}: {count:,} examples; a dry run counts up to {MOST:,}, give it fewer"
            )


def _plan_table(
    experiment: Experiment, planned: dict[str, Planned], absent: frozenset[str] = frozenset()
) -> Table:
    stages = [stage for config in experiment.arms.values() for stage in config.stages]
    controls = any(mix.passage_free for s in stages for mix in s.mixes.values())
    asks = any(asks_familiarity(config) for config in experiment.arms.values())
    notes = ["In brackets: left out by the control."] * controls
    notes += ["Which facts are familiar is not asked here: that takes the model."] * asks
    table = plain_table(f"Plan of {experiment.name}", notes)
    replays = any(stage.replay for stage in stages)
    columns = ["arm", "stage", "own", "mixed in", *([REPLAY] * replays)]
    for column in (*columns, "epochs", "steps", "lr", "records"):
        named = column in ("arm", "stage")
        table.add_column(column, justify="left" if named else "right", no_wrap=named)
    for arm, config in experiment.arms.items():
        for index, stage in enumerate(planned[arm][0]):
            facts = _stage_facts(experiment, arm, index, stage)
            table.add_row(
                arm if index == 0 else "", *_row(config, index, stage, facts, replays, absent)
            )
    return table


def _row(
    config: RunConfig,
    index: int,
    plan: StagePlan,
    facts: dict[str, Any],
    replays: bool,
    absent: frozenset[str],
) -> tuple[str, ...]:
    stage = config.stages[index]
    reused = stage.from_ is not None
    counts = [f"{_about(part, absent)}{len(part.examples)}" for part in plan.mixes.values()]
    left_out = [not part.trained for part in plan.mixes.values()]
    mixed = [f"({n})" if out else n for n, out in zip(counts, left_out, strict=True)]
    return (
        f"{index + 1} {facts['stage']}",
        f"{plan.name} {_about(plan.sets[plan.name], absent)}{facts['own']}",
        "+".join(mixed) or "–",
        *(["+".join(map(str, facts["replay"].values())) or "–"] * replays),
        f"from {origin(stage.from_)}" if stage.from_ else facts["stop"],
        "–" if reused else "≤ " * facts["at_most"] + str(facts["steps"]),
        "–" if reused else f"{stage.train.lr:g}",
        str(facts["snapshots"]),
    )


def _about(part: SourceSet, absent: frozenset[str]) -> str:
    """Return `≈` before the count of a set whose source cannot be read here."""
    return "≈" * (part.source["name"] in absent)


def origin(path: str, most: int = 24) -> str:
    """Shorten a run, or a run's stage, to the end of its name, where names differ.

    Args:
        path: of a run's folder, or of a stage within one.
        most: characters.
    """
    folder = Path(path)
    in_run = folder.parent.name == "stages"
    name = f"{folder.parents[1].name}/{folder.name}" if in_run else folder.name or path
    return name if len(name) <= most else "…" + name[1 - most :]


def _at_most(experiment: Experiment, config: RunConfig, index: int) -> bool:
    """Return whether a stage, or an arm whose steps it copies, may end before the planned steps."""
    stage = config.stages[index]
    if stage.from_ is not None:
        return False
    other = experiment.arms.get(stage.stop.steps_of) if stage.stop.steps_of else None
    return stage.stop.early or (other is not None and _at_most(experiment, other, index))


def _stage_facts(experiment: Experiment, arm: str, index: int, plan: StagePlan) -> dict[str, Any]:
    """Return the exact counts of a stage."""
    config = experiment.arms[arm]
    stage, record = config.stages[index], config.record
    reused, steps = stage.from_ is not None, planned_steps(stage, plan)
    mixed = plan.mixes
    return {
        "stage": config.stage_name(index),
        "set": plan.name,
        "own": len(plan.own),
        "mixed_in": sum(len(part.examples) for part in mixed.values()),
        "mixed_in_trained": any(part.trained for part in mixed.values()),
        "mixes": {
            name: {"examples": len(part.examples), "trained": part.trained}
            for name, part in mixed.items()
        },
        "replay": plan.sets[REPLAY].source["examples"] if REPLAY in plan.sets else {},
        "from": stage.from_,
        "stop": stop_text(stage.stop),
        "steps": 0 if reused else steps,
        "at_most": _at_most(experiment, config, index),
        "lr": stage.train.lr,
        "snapshots": snapshots(record.at, index, steps, reused=reused) if record else 0,
    }


def _facts(experiment: Experiment, planned: dict[str, Planned]) -> dict[str, Any]:
    """Return the plan as JSON holds it; an arm's name is "" if there are none."""
    arms = {
        arm: [_stage_facts(experiment, arm, i, stage) for i, stage in enumerate(planned[arm][0])]
        for arm in experiment.arms
    }
    facts = {"name": experiment.name, "arms": arms, "warnings": remarks_on(experiment, planned)}
    scores = score_lines(experiment, planned)
    return facts | ({"scores": scores} if scores else {})
