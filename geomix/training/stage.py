"""A stage ready for training: its index in the run, its examples and their tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from geomix.config.names import mix_label, mixed_name
from geomix.config.run import Quirk, RunConfig, StageConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import ChatFormat
from geomix.data.example import TokenisedExample
from geomix.data.plan import StagePlan, planned_steps
from geomix.data.provenance import content_hash, describe, tokens_hash
from geomix.data.tokenise import tokenise_all
from geomix.training.optimiser import learning_rate
from geomix.util.errors import UserError
from geomix.util.reading import all_of, read_json


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        index: its index, from 0.
        name: as in its folder.
        config: its training.
        plan: its examples as text.
        tokenised: the same by set name, as tokens.
        steps: optimiser steps, unless a rule ends it earlier.
        before: steps of the stages before it.
        all_steps: steps of the whole run.
        literal: its deviations after the paper's published code (`paper_literal`).
    """

    index: int
    name: str
    config: StageConfig
    plan: StagePlan
    tokenised: dict[str, list[TokenisedExample]]
    steps: int
    before: int
    all_steps: int
    literal: tuple[Quirk, ...] = ()

    @property
    def own(self) -> list[TokenisedExample]:
        """The stage's own examples."""
        return self.tokenised[self.plan.name]

    @property
    def mixes(self) -> dict[str, list[TokenisedExample]]:
        """The examples of each mix by set name, also where the control leaves them out."""
        return {name: self.tokenised[name] for name in self.plan.mixes}

    @property
    def epochs(self) -> int:
        """Passes over the examples; the last one may be incomplete."""
        return math.ceil(self.steps / self.plan.steps(1, self.config.train.batch_size))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the stage, from 0."""
        train, from_zero = self.config.train, "zero-warmup" in self.literal
        if train.schedule_over == "run":
            at = self.before + step
            return learning_rate(at, self.all_steps, train, from_zero=from_zero)
        return learning_rate(step, self.steps, train, from_zero=from_zero)

    @property
    def mean_batch(self) -> float:
        """Examples of a step, on average, without those that the control leaves out."""
        trained = sum(len(part.examples) for part in self.plan.sets.values() if part.trained)
        return trained / self.plan.steps(1, self.config.train.batch_size)

    def batch(self, indices: Sequence[int]) -> dict[str, list[TokenisedExample]]:
        """Return the examples of one step by source, padded if padding carries loss."""
        found = {
            name: [self.tokenised[name][i] for i in chosen]
            for name, chosen in self.plan.by_set(indices).items()
        }
        if "padding-loss" not in self.literal:
            return found
        return with_padding_loss(found, self._longest if "pad-to-set" in self.literal else None)

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest example that the stage trains on."""
        trained = [self.tokenised[name] for name, part in self.plan.sets.items() if part.trained]
        return max(len(example.ids) for examples in trained for example in examples)

    def described(
        self, evaluated: dict[str, Sequence[TokenisedExample]], chat: ChatFormat
    ) -> dict[str, Any]:
        """Return the contents of `data.json`: counts, sources and hashes."""
        found = describe(self.plan, self.tokenised)
        found["evaluated"] = {
            name: {
                "examples": len(sets),
                "sha256": content_hash([e.text for e in sets]),
                "tokens_sha256": tokens_hash(sets),
            }
            for name, sets in evaluated.items()
        }
        found["chat"] = asdict(chat.literals(1))
        return found


def stages_of(
    config: RunConfig,
    plans: Sequence[StagePlan],
    tokenizer: Any,
    chat: ChatFormat,
    known: Mapping[int, int] = MappingProxyType({}),
) -> list[Stage]:
    """Build and tokenise every stage of a run.

    Args:
        config: the run.
        plans: the examples of the stages.
        tokenizer: of its model.
        chat: its chat format.
        known: number of steps of the stages that copy them from another run.
    """
    steps = [known.get(i) or planned_steps(config.stages[i], p) for i, p in enumerate(plans)]
    return [
        Stage(
            index,
            config.stage_name(index),
            config.stages[index],
            plan,
            {n: tokenise_all(tokenizer, part.examples, chat) for n, part in plan.sets.items()},
            steps[index],
            sum(steps[:index]),
            sum(steps),
            config.paper_literal,
        )
        for index, plan in enumerate(plans)
    ]


def mixed_sets(stages: Sequence[Stage]) -> dict[str, Sequence[TokenisedExample]]:
    """Return the mixed-in sets: `D_M`, or, for mixes that differ by stage, `D_M1`, `D_M2`, …."""
    found: dict[str, Sequence[TokenisedExample]] = {}
    for name in dict.fromkeys(name for stage in stages for name in stage.mixes):
        mixes = {s.index: s.mixes[name] for s in stages if name in s.mixes}
        distinct = {tuple(example.ids for example in mixed) for mixed in mixes.values()}
        if len(distinct) == 1:
            found[name] = next(iter(mixes.values()))
        else:
            label = mix_label(name)
            found |= {mixed_name(label, index): mixed for index, mixed in mixes.items()}
    return found


def check_unchanged(file: Path, described: dict[str, Any]) -> None:
    """Reject a resume with other examples than at the run's start.

    Args:
        file: its `data.json`, which may not exist yet.
        described: the stage's present examples.

    Raises:
        UserError: they differ.
    """
    known = read_json(file) if file.exists() else {}
    for part in ("sets", "evaluated") if known else ():
        for name, found in described[part].items():
            before = known.get(part, {}).get(name, {})
            if before.get("sha256") != found["sha256"]:
                source = found.get("source", {})
                where = source.get("path") or source.get("name") or "the source"
                raise UserError(
                    f"{file}: {name} is not what it was when the run began; restore "
                    f"{where} or begin a new run"
                )
            tokens = found.get("tokens_sha256")
            if before.get("tokens_sha256", tokens) != tokens:
                raise other_tokens(file, name)
    chat = _as_json(described.get("chat"))
    if known.get("chat", chat) != chat:
        raise UserError(
            f"{file}: the chat template writes another text than when the run began; restore it "
            "or begin a new run"
        )


def other_tokens(file: Path, name: str) -> UserError:
    """Return the error for a set whose tokens differ from those at the run's start."""
    return UserError(
        f"{file}: {name} becomes other tokens than when the run began, as the model's tokenizer "
        "or the chat template is another; restore it or begin a new run"
    )


def check_described(file: Path) -> None:
    """Reject a started stage without a description of its training data.

    Args:
        file: its `data.json`.

    Raises:
        UserError: its `data.json` is missing or does not describe the sets.
    """
    known = read_json(file) if file.is_file() else {}
    parts = [known.get(name) for name in ("sets", "evaluated")]
    if not all(isinstance(part, dict) and all_of([*part.values()], dict) for part in parts):
        raise UserError(
            f"{file}: does not say what the stage was trained on, so that its checkpoints cannot "
            "be recorded; restore the file"
        )


def check_reused_data(file: Path, described: dict[str, Any], stage: Stage) -> None:
    """Reject a stage of another run that was trained on other examples.

    Args:
        file: that stage's `data.json`.
        described: this run's description of the stage.
        stage: of this run.

    Raises:
        UserError: its own examples or the chat format differ.
    """
    known, name = read_json(file), stage.plan.name
    theirs = known.get("sets", {}).get(name, {}).get("sha256")
    key = f"stages[{stage.index}].from"
    if theirs != described["sets"][name]["sha256"]:
        raise UserError(f"{key}: {file}: trained on other examples than this run's {name}")
    if known.get("chat") != _as_json(described["chat"]):
        raise UserError(
            f"{key}: {file}: trained in another chat format; set chat_template as there"
        )
    mine = described["sets"][name]["tokens_sha256"]
    if known["sets"][name].get("tokens_sha256", mine) != mine:
        raise UserError(
            f"{key}: {file}: trained on other tokens than this run's {name}; is its tokenizer "
            "another?"
        )


def _as_json(value: Any) -> Any:
    """Convert a value as JSON does: tuples become lists."""
    return json.loads(json.dumps(value))
