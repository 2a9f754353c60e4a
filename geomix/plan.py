"""What a configuration would do: stages, exact counts and steps, before any model is loaded."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from geomix.config import RunConfig
from geomix.config_file import Experiment
from geomix.config_train import stop_text
from geomix.data.probes import asks_familiarity, evaluation_sets, probe_sets
from geomix.data.stage import MIXED, REPLAY, StagePlan, plan_stages, planned_steps
from geomix.record.schedule import parse


def show_plan(experiment: Experiment) -> None:
    """Print the plan."""
    Console().print(plan_table(experiment))


def plan_table(experiment: Experiment) -> Table:
    """One row a stage of each arm. Reads or generates the data, so its errors show here too.

    Raises:
        UserError: a source cannot give what the configuration asks for.
    """
    controls = any(s.mix and s.mix.passage_free for c in experiment.arms.values() for s in c.stages)
    asks = any(asks_familiarity(config) for config in experiment.arms.values())
    notes = ["In brackets: left out by the control."] * controls
    notes += ["Which facts are familiar is not asked here: that takes the model."] * asks
    table = Table(
        title=f"Plan of {experiment.name}",
        caption="\n".join(notes) or None,
        caption_justify="left",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    replays = any(stage.replay for c in experiment.arms.values() for stage in c.stages)
    columns = ["arm", "stage", "own", "mixed in", *([REPLAY] * replays)]
    for column in (*columns, "epochs", "steps", "lr", "records"):
        table.add_column(column, justify="left" if column in ("arm", "stage") else "right")
    for arm, config in experiment.arms.items():
        plans = plan_stages(config)
        for index, plan in enumerate(plans):
            table.add_row(arm if index == 0 else "", *_row(config, index, plan, replays))
        probe_sets(config, plans)
        evaluation_sets(config, plans)
    return table


def _row(config: RunConfig, index: int, plan: StagePlan, replays: bool) -> tuple[str, ...]:
    stage = config.stages[index]
    steps = planned_steps(stage, plan)
    passages = plan.sets.get(MIXED)
    mixed = "–" if passages is None else str(len(passages.examples))
    replayed = plan.sets[REPLAY].source["examples"] if REPLAY in plan.sets else {}
    snapshots = len(parse(config.record.at).steps_of(index, steps)) if config.record else 0
    return (
        f"{index}-{config.stage_name(index)}",
        f"{plan.name} {len(plan.own)}",
        f"({mixed})" if passages and not passages.trained else mixed,
        *(["+".join(map(str, replayed.values())) or "–"] * replays),
        stop_text(stage.stop),
        f"≤ {steps}" if stage.stop.early else str(steps),
        f"{stage.train.lr:g}",
        str(snapshots),
    )
