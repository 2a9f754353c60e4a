"""What a stage trains on: its own examples, the mixed-in ones, and the order of both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from geomix.config import DataConfig, MixConfig, RunConfig, SourceConfig
from geomix.data.example import Example, TokenisedExample
from geomix.data.registry import Short, examples_of
from geomix.data.source import Request
from geomix.data.split import Split
from geomix.errors import UserError

MIXED = "D_M"
"""Name of the mixed-in examples; a stage's own are `D_A`, `D_B`, … by its place."""

HELD_OUT: Split = "held-out"
"""Name of the set that nobody trains on: the first stage's source, other examples."""


def set_name(stage: int) -> str:
    """`D_A` for the first stage, `D_B` for the second, … `D_N` (D_M is the mixed-in set)."""
    letters = "ABCDEFGHIJKLNOPQRSTUVWXYZ"
    if stage >= len(letters):
        raise UserError(f"stages: {stage + 1} or more; geomix names up to {len(letters)}")
    return f"D_{letters[stage]}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The examples of one stage as text.

    Attributes:
        name: set name of the stage's own examples.
        own: the stage's own examples.
        mixed: the examples of D_M; also where the control leaves them out of every batch.
        passage_free: whether it does.
    """

    name: str
    own: list[Example]
    mixed: list[Example]
    passage_free: bool

    @property
    def size(self) -> int:
        """Examples of an epoch, those that the control leaves out included."""
        return len(self.own) + len(self.mixed)

    def steps(self, epochs: int, batch_size: int) -> int:
        """Optimiser steps of the stage; the last, partial batch of an epoch is a step too."""
        return epochs * math.ceil(self.size / batch_size)

    def batches(self, seed: int, stage: int, epoch: int, batch_size: int) -> list[list[int]]:
        """Indices into `own + mixed`, batch by batch.

        A pure function of its arguments: resuming needs no loader's state. The control has the
        batches of its mix with the mixed-in examples taken out; one may then be empty.
        """
        order = np.random.default_rng([seed, stage, epoch]).permutation(self.size).tolist()
        if self.passage_free:
            return [[i for i in part if i < len(self.own)] for part in _parts(order, batch_size)]
        return _parts(order, batch_size)


def _parts(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def plan_stages(config: RunConfig) -> list[StagePlan]:
    """Generate or read the examples of every stage.

    Raises:
        UserError: a source cannot give what the configuration asks for.
    """
    return [
        StagePlan(
            name=set_name(index),
            own=own_examples(stage.data, config.seed),
            mixed=mixed_examples(stage.mix, stage.data.limit, config.seed, index),
            passage_free=stage.mix is not None and stage.mix.passage_free,
        )
        for index, stage in enumerate(config.stages)
    ]


def own_examples(data: DataConfig, seed: int) -> list[Example]:
    """The examples that a stage names."""
    request = _request(data, data.limit, _seed(data, seed), data.split)
    advice = "set limit: {found}, or allow_repeat: true"
    return examples_of(data.source, request, _short(data), advice)


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


def mixed_examples(mix: MixConfig | None, own: int, seed: int, stage: int) -> list[Example]:
    """The passages of D_M: exactly `ratio` for each of the `own` examples, rounded half up.

    A ratio of 0 is none; one that rounds to none is a mistake.

    Two stages that mix the same generated source draw different passages; of a finite or streamed
    source they draw in another order, so some may be the same.
    """
    if mix is None or mix.ratio == 0:
        return []
    count = rounded_share(mix.ratio, own)
    if count == 0:
        raise UserError(f"mix.ratio {mix.ratio} of {own} examples is none; give a larger ratio")
    derived = int(np.random.SeedSequence([_seed(mix, seed), stage]).generate_state(1)[0])
    request = _request(mix, count, derived, words=mix.words)
    advice = "set a smaller ratio, or allow_repeat: true"
    return examples_of(mix.source, request, _short(mix), advice)


def rounded_share(ratio: float, of: int) -> int:
    """`ratio` times `of`, rounded half up, with the ratio as it is written: 0.29 of 50 is 15."""
    return math.floor(Fraction(str(ratio)) * of + Fraction(1, 2))


def probe_sets(config: RunConfig, plans: Sequence[StagePlan]) -> dict[str, list[Example]]:
    """The sets whose gradients are compared: D_A, D_B, …, D_M and held-out, whole.

    D_M is the first stage's mix that there is, else the one that `record.mix` names, built as the
    first stage would mix it: the arms of a comparison then share one D_M.
    """
    sets = {plan.name: plan.own for plan in plans}
    mixed = next((plan.mixed for plan in plans if plan.mixed), [])
    first = config.stages[0].data
    if not mixed and config.record is not None:
        mixed = mixed_examples(config.record.mix, first.limit, config.seed, 0)
    if mixed:
        sets[MIXED] = mixed
    request = _request(first, first.limit, _seed(first, config.seed), HELD_OUT)
    if first.split != HELD_OUT and (held_out := examples_of(first.source, request, "fewer")):
        sets[HELD_OUT] = held_out
    return sets


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
    plan: StagePlan, own: Sequence[TokenisedExample], mixed: Sequence[TokenisedExample]
) -> dict[str, Any]:
    """`data.json`: counts, hashes, and what each source weighs in the loss (theory: w_A, w_M)."""
    parts = {plan.name: (plan.own, own)}
    if plan.mixed:
        parts[MIXED] = (plan.mixed, mixed)
    trained = {n: 0 if n == MIXED and plan.passage_free else 1 for n in parts}
    tokens = {name: sum(e.target_tokens for e in found) for name, (_, found) in parts.items()}
    weighed_tokens = sum(tokens[n] * trained[n] for n in parts)
    weighed_examples = sum(len(parts[n][0]) * trained[n] for n in parts)
    return {
        "sets": {
            name: {
                "examples": len(texts),
                "target_tokens": tokens[name],
                "sha256": content_hash(texts),
                "trained": bool(trained[name]),
                "effective_weight": {
                    "token": tokens[name] * trained[name] / weighed_tokens,
                    "example": len(texts) * trained[name] / weighed_examples,
                },
            }
            for name, (texts, _) in parts.items()
        }
    }
