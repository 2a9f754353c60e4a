"""Sets that are measured, not trained on: probe sets, evaluated sets, solved examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from geomix.config.data import DataConfig
from geomix.config.run import RunConfig
from geomix.data.example import Example
from geomix.data.plan import (
    Choose,
    SourceSet,
    StagePlan,
    mixed_sets,
    own_examples,
    request_of,
    seed_of,
    use_all,
    written_at,
)
from geomix.data.sources import SOURCES
from geomix.data.sources.select import select
from geomix.data.split import Split
from geomix.util.errors import Gathered, UserError

HELD_OUT: Split = "held-out"
"""Name of the set that nobody trains on: other examples of the first stage's source."""


def probe_sets(
    config: RunConfig, plans: Sequence[StagePlan], choose: Choose = use_all
) -> dict[str, list[Example]]:
    """Build the probe sets: D_A, D_B, …, D_M and held-out, whole.

    D_M is the first stage's mix that exists, else the one that `record.mix` names, built as the
    first stage would mix it: the arms of a comparison then share one D_M. The same holds for each
    of several mixes, by its name. Held-out examples are chosen like the first stage's own, and none
    is trained on in any stage.
    """
    sets = {plan.name: plan.own for plan in plans}
    for plan in plans:
        for name, part in plan.mixes.items():
            sets.setdefault(name, part.examples)
    for name, part in recorded_mixes(config, plans, choose).items():
        sets[name] = part.examples
    first = config.stages[0].data
    if first.split != HELD_OUT:
        request = request_of(first, first.limit, seed_of(first, config.seed), HELD_OUT)
        request = replace(request, after=plans[0].sets[plans[0].name].examples_read)
        found = select(first.source, request, "fewer", unusable=partial(choose, first)).examples
        trained = _questions(plans)
        if held_out := [e for e in found if _question(e) not in trained]:
            sets[HELD_OUT] = held_out
    return sets


def recorded_mixes(
    config: RunConfig, plans: Sequence[StagePlan], choose: Choose = use_all
) -> dict[str, SourceSet]:
    """Return the sets of `record.mix` that no stage mixes in, by name."""
    if config.record is None:
        return {}
    there = {name for plan in plans for name in plan.mixes}
    own, key = len(plans[0].own), ("record", "mix")
    return mixed_sets(config, key, config.record.mix, own, 0, choose, without=there)


def evaluation_sets(
    config: RunConfig, plans: Sequence[StagePlan], choose: Choose = use_all
) -> dict[str, list[Example]]:
    """Build the sets of `evaluate.sets`: evaluated, never trained on.

    Raises:
        UserError: a source cannot give what is requested, or a stage trains on one of them.
    """
    trained = _questions(plans)
    sets = {}
    mistakes = Gathered()
    for name, data in config.evaluate.sets.items():
        with mistakes.each(), written_at(config, "evaluate", "sets", name):
            sets[name] = own_examples(data, config, choose).examples
            shared = [example for example in sets[name] if _question(example) in trained]
            if shared and not (choose is use_all and asks_familiarity(config)):
                raise UserError(
                    f"evaluate.sets.{name}: {len(shared)} of its {len(sets[name])} examples are "
                    f"trained on, such as {shared[0].prompt!r:.80}; take another split, or "
                    "familiar: only where the stages drop them"
                )
    mistakes.check()
    return sets


def asks_familiarity(config: RunConfig) -> bool:
    """Return whether the base model must first decide which facts are used; sets may share some."""
    data = [*(stage.data for stage in config.stages), *config.evaluate.sets.values()]
    return any(one.familiar for one in data)


def _questions(plans: Sequence[StagePlan]) -> set[tuple[Any, ...]]:
    sets = [part for plan in plans for part in plan.sets.values() if part.trained]
    return {_question(example) for part in sets for example in part.examples}


def _question(example: Example) -> tuple[Any, ...]:
    return (example.earlier, example.prompt)


def shots_of(data: DataConfig, seed: int, count: int) -> list[Example]:
    """Return solved examples for a prompt: of the held-out split, or a file's first rows.

    The choice depends on neither `limit` nor `split`, so two sets of one source get the same ones.
    """
    split = HELD_OUT if data.source in SOURCES else "train"
    request = request_of(data, count, seed_of(data, seed), split)
    return select(data.source, request, "fewer").examples
