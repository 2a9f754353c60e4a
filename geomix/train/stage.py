"""A stage made ready for training: its place in the run, its examples and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geomix.config import RunConfig, StageConfig
from geomix.data.chat import ChatFormat
from geomix.data.describe import content_hash, describe
from geomix.data.example import TokenisedExample
from geomix.data.stage import MIXED, StagePlan
from geomix.data.template import tokenise_all
from geomix.errors import UserError
from geomix.run import read_json


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run.

    Attributes:
        index: its place, from 0.
        name: as its folder has it.
        config: how it trains.
        plan: its examples as text.
        tokenised: the same by set name, as tokens.
    """

    index: int
    name: str
    config: StageConfig
    plan: StagePlan
    tokenised: dict[str, list[TokenisedExample]]

    @property
    def own(self) -> list[TokenisedExample]:
        """The stage's own examples."""
        return self.tokenised[self.plan.name]

    @property
    def mixed(self) -> list[TokenisedExample]:
        """The examples of D_M; the control has them too, and leaves them out of its batches."""
        return self.tokenised.get(MIXED, [])

    @property
    def steps(self) -> int:
        """Optimiser steps, unless a rule ends the stage earlier."""
        return self.plan.steps(self.config.stop.epochs, self.config.train.batch_size)

    def batch(self, indices: Sequence[int]) -> dict[str, list[TokenisedExample]]:
        """The examples of one step by source."""
        return {
            name: [self.tokenised[name][i] for i in places]
            for name, places in self.plan.by_set(indices).items()
        }

    def described(
        self, evaluated: dict[str, Sequence[TokenisedExample]], chat: ChatFormat
    ) -> dict[str, Any]:
        """What `data.json` says: counts, sources and hashes."""
        found = describe(self.plan, self.tokenised)
        found["evaluated"] = {
            name: {"examples": len(sets), "sha256": content_hash([e.text for e in sets])}
            for name, sets in evaluated.items()
        }
        found["chat"] = asdict(chat.literals(1))
        return found


def stages_of(
    config: RunConfig, plans: Sequence[StagePlan], tokenizer: Any, chat: ChatFormat
) -> list[Stage]:
    """Every stage of a run, tokenised."""
    return [
        Stage(
            index,
            config.stage_name(index),
            config.stages[index],
            plan,
            {n: tokenise_all(tokenizer, part.examples, chat) for n, part in plan.sets.items()},
        )
        for index, plan in enumerate(plans)
    ]


def mixed_sets(stages: Sequence[Stage]) -> dict[str, Sequence[TokenisedExample]]:
    """The mixed-in sets: `D_M`, or where stages mix different ones `D_M1`, `D_M2`, … by stage."""
    mixes = {stage.index: stage.mixed for stage in stages if stage.mixed}
    distinct = {tuple(example.ids for example in mixed) for mixed in mixes.values()}
    if len(distinct) <= 1:
        return {MIXED: next(iter(mixes.values()))} if mixes else {}
    return {f"{MIXED}{index + 1}": mixed for index, mixed in mixes.items()}


def check_unchanged(file: Path, described: dict[str, Any]) -> None:
    """Refuse to go on with other examples than the run had when it began.

    Args:
        file: its `data.json`, which may not be there yet.
        described: what the stage trains on now.

    Raises:
        UserError: they differ.
    """
    known = read_json(file) if file.exists() else {}
    for part in ("sets", "evaluated") if known else ():
        for name, found in described[part].items():
            if known.get(part, {}).get(name, {}).get("sha256") != found["sha256"]:
                source = found.get("source", {})
                where = source.get("path") or source.get("name") or "the source"
                raise UserError(
                    f"{file}: {name} is not what it was when the run began; restore "
                    f"{where} or begin a new run"
                )
