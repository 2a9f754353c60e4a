"""What a stage trains on: its own examples, mixed-in and replayed ones, and their order."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from geomix.config import DataConfig, MixConfig, ReplayConfig, RunConfig, SourceConfig
from geomix.data.example import Example, TokenisedExample
from geomix.data.registry import SOURCES, Short, described, select
from geomix.data.source import Request
from geomix.data.split import Split
from geomix.errors import UserError

MIXED = "D_M"
"""Name of the mixed-in examples; a stage's own are `D_A`, `D_B`, … by its place."""

REPLAY = "replay"
"""Name of the examples of earlier stages that are trained on again."""

HELD_OUT: Split = "held-out"
"""Name of the set that nobody trains on: the first stage's source, other examples."""


def set_name(stage: int) -> str:
    """`D_A` for the first stage, `D_B` for the second, … `D_N` (D_M is the mixed-in set)."""
    letters = "ABCDEFGHIJKLNOPQRSTUVWXYZ"
    if stage >= len(letters):
        raise UserError(f"stages: {stage + 1} or more; geomix names up to {len(letters)}")
    return f"D_{letters[stage]}"


@dataclass(frozen=True, slots=True)
class SourceSet:
    """The examples of one source in a stage: no micro-batch holds those of two.

    Attributes:
        examples: as text.
        source: where they are from, for `data.json`.
        trained: whether they are trained on; the control leaves the passages of its mix out.
        dropped: how many of the source's examples were passed over, by reason.
    """

    examples: list[Example]
    source: dict[str, Any]
    trained: bool = True
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        """How many of the source's examples came before the last of these."""
        return len(self.examples) + sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The examples of one stage as text.

    Attributes:
        name: set name of the stage's own examples.
        sets: by name: the stage's own examples, then, if there are any, those of D_M and replay.
    """

    name: str
    sets: dict[str, SourceSet]

    @property
    def own(self) -> list[Example]:
        """The stage's own examples."""
        return self.sets[self.name].examples

    @property
    def mixed(self) -> list[Example]:
        """The examples of D_M; also where the control leaves them out of every batch."""
        return self.sets[MIXED].examples if MIXED in self.sets else []

    @property
    def size(self) -> int:
        """Examples of an epoch, those that the control leaves out included."""
        return sum(len(part.examples) for part in self.sets.values())

    def steps(self, epochs: int, batch_size: int) -> int:
        """Optimiser steps of the stage; the last, partial batch of an epoch is a step too."""
        return epochs * math.ceil(self.size / batch_size)

    def batches(self, seed: int, stage: int, epoch: int, batch_size: int) -> list[list[int]]:
        """Indices into the examples of all sets, one after the other, batch by batch.

        A pure function of its arguments: resuming needs no loader's state. The control has the
        batches of its mix with the mixed-in examples taken out; one may then be empty.
        """
        order = np.random.default_rng([seed, stage, epoch]).permutation(self.size).tolist()
        trained = [part.trained for part in self.sets.values() for _ in part.examples]
        parts = (order[start : start + batch_size] for start in range(0, self.size, batch_size))
        return [[i for i in part if trained[i]] for part in parts]

    def by_set(self, batch: Sequence[int]) -> dict[str, list[int]]:
        """The examples of a batch by set, as indices into that set's own; a set may have none."""
        found: dict[str, list[int]] = {}
        start = 0
        for name, part in self.sets.items():
            end = start + len(part.examples)
            found[name] = [i - start for i in batch if start <= i < end]
            start = end
        return found


Choose = Callable[[SourceConfig, Sequence[Example]], Sequence[str]]
"""Why a run cannot use each example of one of its sources; empty where it can. That takes the
model, and so comes from above: `geomix.choose`."""


def use_all(source: SourceConfig, examples: Sequence[Example]) -> Sequence[str]:  # noqa: ARG001
    """The choice before there is a model: every example can be used."""
    return [""] * len(examples)


def plan_stages(config: RunConfig, choose: Choose = use_all) -> list[StagePlan]:
    """Generate or read the examples of every stage.

    Args:
        config: the run.
        choose: which examples it can use; others of their source take the places of the rest.

    Raises:
        UserError: a source cannot give what the configuration asks for.
    """
    plans: list[StagePlan] = []
    for index, stage in enumerate(config.stages):
        name = set_name(index)
        sets = {name: own_examples(stage.data, config.seed, choose)}
        if stage.mix is not None and stage.mix.ratio:
            sets[MIXED] = _mixed(stage.mix, stage.data.limit, config.seed, index, choose)
        if stage.replay is not None:
            earlier = {plan.name: plan.own for plan in plans}
            sets[REPLAY] = _replayed(stage.replay, earlier, config.seed, index)
        plans.append(StagePlan(name, sets))
    return plans


def own_examples(data: DataConfig, seed: int, choose: Choose = use_all) -> SourceSet:
    """The examples that a stage, or a set that is evaluated, names."""
    request = _request(data, data.limit, _seed(data, seed), data.split)
    advice = "set limit: {found}, or allow_repeat: true"
    found = select(data.source, request, _short(data), advice, partial(choose, data))
    source = described(data.source, request)
    if data.familiar is not None:
        source["familiar"] = data.familiar.model_dump()
    return SourceSet(found.examples, source, dropped=found.dropped)


def _short(source: SourceConfig) -> Short:
    return "repeat" if source.allow_repeat else "error"


def _request(
    source: SourceConfig, count: int, seed: int, split: Split = "train", words: int = 50
) -> Request:
    """What a part of the configuration asks of its source."""
    return Request(
        count=count,
        seed=seed,
        split=split,
        words=words,
        path=source.path,
        subset=source.subset,
        vocabulary=source.vocabulary,
        columns=source.columns,
        template=source.template,
    )


def mixed_examples(
    mix: MixConfig | None, own: int, seed: int, stage: int, choose: Choose = use_all
) -> list[Example]:
    """The passages of D_M: exactly `ratio` for each of the `own` examples, rounded half up.

    A ratio of 0 is none; one that rounds to none is a mistake. Two stages that mix the same
    generated source draw different passages; of a finite or streamed source they draw in another
    order, so some may be the same.
    """
    if mix is None or not mix.ratio:
        return []
    return _mixed(mix, own, seed, stage, choose).examples


def _mixed(mix: MixConfig, own: int, seed: int, stage: int, choose: Choose) -> SourceSet:
    count = rounded_share(mix.ratio, own)
    if count == 0:
        raise UserError(f"mix.ratio {mix.ratio} of {own} examples is none; give a larger ratio")
    derived = int(np.random.SeedSequence([_seed(mix, seed), stage]).generate_state(1)[0])
    request = _request(mix, count, derived, words=mix.words)
    advice = "set a smaller ratio, or allow_repeat: true"
    found = select(mix.source, request, _short(mix), advice, partial(choose, mix))
    source = {**described(mix.source, request), "ratio": mix.ratio}
    return SourceSet(found.examples, source, not mix.passage_free, found.dropped)


def _replayed(
    replay: ReplayConfig, earlier: Mapping[str, list[Example]], seed: int, stage: int
) -> SourceSet:
    """Examples of earlier stages, drawn without replacement; of each `ratio`, rounded half up.

    Which ones is a pure function of the seed and the stage; a larger ratio has a smaller one's.
    """
    seed = seed if replay.seed is None else replay.seed
    found: list[Example] = []
    counts = {}
    for index, (name, examples) in enumerate(earlier.items()):
        if replay.stages is not None and index not in replay.stages:
            continue
        counts[name] = rounded_share(replay.ratio, len(examples))
        if counts[name] == 0:
            raise UserError(
                f"stages[{stage}].replay.ratio {replay.ratio} of {len(examples)} examples of "
                f"{name} is none; give a larger ratio"
            )
        order = np.random.default_rng([seed, stage, index, 0x524550]).permutation(len(examples))
        found += [examples[i] for i in order[: counts[name]].tolist()]
    source = {"name": REPLAY, "ratio": replay.ratio, "seed": seed, "examples": counts}
    return SourceSet(found, source)


def shots_of(data: DataConfig, seed: int, count: int) -> list[Example]:
    """Solved examples to show to a model: of the held-out split, of a file its first rows.

    Which ones depends on neither `limit` nor `split`, so two sets of one source are asked alike.
    """
    split = HELD_OUT if data.source in SOURCES else "train"
    request = _request(data, count, _seed(data, seed), split)
    return select(data.source, request, "fewer").examples


def rounded_share(ratio: float, of: int) -> int:
    """`ratio` times `of`, rounded half up, with the ratio as it is written: 0.29 of 50 is 15."""
    return math.floor(Fraction(str(ratio)) * of + Fraction(1, 2))


def probe_sets(
    config: RunConfig, plans: Sequence[StagePlan], choose: Choose = use_all
) -> dict[str, list[Example]]:
    """The sets whose gradients are compared: D_A, D_B, …, D_M and held-out, whole.

    D_M is the first stage's mix that there is, else the one that `record.mix` names, built as the
    first stage would mix it: the arms of a comparison then share one D_M. Held-out examples are
    chosen like the first stage's own, and none is trained on in any stage.
    """
    sets = {plan.name: plan.own for plan in plans}
    mixed = next((plan.mixed for plan in plans if plan.mixed), [])
    first = config.stages[0].data
    if not mixed and config.record is not None:
        mixed = mixed_examples(config.record.mix, first.limit, config.seed, 0, choose)
    if mixed:
        sets[MIXED] = mixed
    if first.split != HELD_OUT:
        request = _request(first, first.limit, _seed(first, config.seed), HELD_OUT)
        request = replace(request, after=plans[0].sets[plans[0].name].looked_at)
        found = select(first.source, request, "fewer", unusable=partial(choose, first)).examples
        trained = _questions(plans)
        if held_out := [e for e in found if _question(e) not in trained]:
            sets[HELD_OUT] = held_out
    return sets


def evaluation_sets(
    config: RunConfig, plans: Sequence[StagePlan], choose: Choose = use_all
) -> dict[str, list[Example]]:
    """The sets of `evaluate.sets`: evaluated, never trained on.

    Raises:
        UserError: a source cannot give what is asked for, or a stage trains on one of them.
    """
    trained = _questions(plans)
    sets = {}
    for name, data in config.evaluate.sets.items():
        sets[name] = own_examples(data, config.seed, choose).examples
        shared = [example for example in sets[name] if _question(example) in trained]
        if shared:
            raise UserError(
                f"evaluate.sets.{name}: {len(shared)} of its {len(sets[name])} examples are "
                f"trained on, such as {shared[0].prompt!r:.80}; take another split, or familiar: "
                "only where the stages drop them"
            )
    return sets


def _questions(plans: Sequence[StagePlan]) -> set[tuple[Any, ...]]:
    sets = [part for plan in plans for part in plan.sets.values() if part.trained]
    return {_question(example) for part in sets for example in part.examples}


def _question(example: Example) -> tuple[Any, ...]:
    return (example.earlier, example.prompt)


def _seed(source: SourceConfig, seed: int) -> int:
    return seed if source.seed is None else source.seed


def content_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over everything that is trained on, in order: prompts, targets, earlier exchanges."""
    digest = hashlib.sha256()
    for example in examples:
        trained = [example.prompt, example.target, *(example.earlier and [example.earlier])]
        digest.update(json.dumps(trained).encode())
    return digest.hexdigest()


def describe(
    plan: StagePlan, tokenised: Mapping[str, Sequence[TokenisedExample]]
) -> dict[str, Any]:
    """`data.json`: sources, counts, hashes, and what each set weighs in the loss (w_A, w_M, …).

    `distinct` is under `examples` where some are repeated. The weights are those of an epoch.

    Args:
        plan: of the stage.
        tokenised: the examples of each of its sets.
    """
    tokens = {name: sum(e.target_tokens for e in found) for name, found in tokenised.items()}
    trained = {name: part for name, part in plan.sets.items() if part.trained}
    all_tokens = sum(tokens[name] for name in trained)
    all_examples = sum(len(part.examples) for part in trained.values())
    return {
        "sets": {
            name: {
                "source": part.source,
                "examples": len(part.examples),
                "distinct": len({(e.prompt, e.target, e.earlier) for e in part.examples}),
                "target_tokens": tokens[name],
                "sha256": content_hash(part.examples),
                "dropped": part.dropped,
                "trained": part.trained,
                "effective_weight": {
                    "token": tokens[name] / all_tokens if part.trained else 0.0,
                    "example": len(part.examples) / all_examples if part.trained else 0.0,
                },
            }
            for name, part in plan.sets.items()
        }
    }
