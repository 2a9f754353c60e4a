"""Examples that a stage trains on: its own, mixed-in and replayed ones, and their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from geomix.config.data import DataConfig, MixConfig, ReplayConfig, SourceConfig, mixes_of
from geomix.config.names import REPLAY, Role, set_name
from geomix.config.run import RunConfig, StageConfig
from geomix.data.duplicates import InCommon, prompts_in_common
from geomix.data.example import Example
from geomix.data.sources.base import Request
from geomix.data.sources.select import Short, described, select
from geomix.data.split import Split
from geomix.util.errors import Gathered, OfKey, UserError

MOST_EVERY = 1_000_000
"""Most examples if all are requested."""


@dataclass(frozen=True, slots=True)
class SourceSet:
    """Examples of one source in a stage; no micro-batch mixes two sources.

    Attributes:
        examples: the examples as text.
        source: their origin, for `data.json`.
        trained: whether they are trained on; the control leaves the passages of its mix out.
        dropped: number of the source's examples that were rejected, by reason.
        role: their role in the stage.
    """

    examples: list[Example]
    source: dict[str, Any]
    trained: bool = True
    dropped: dict[str, int] = field(default_factory=dict)
    role: Role = "own"

    @property
    def examples_read(self) -> int:
        """Number of the source's examples read, up to the last one used."""
        return len(self.examples) + sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Examples of one stage as text.

    Attributes:
        name: set name of the stage's own examples.
        sets: by name: the stage's own examples, then, if there are any, those of its mixes and of
            replay.
        reshuffled: whether every epoch has an order of its own.
        drop_last: whether an epoch's last, partial batch is left out.
        in_common: by earlier stage's set, how many of the own prompts are asked there too.
    """

    name: str
    sets: dict[str, SourceSet]
    reshuffled: bool = True
    drop_last: bool = False
    in_common: dict[str, InCommon] = field(default_factory=dict)

    @property
    def own(self) -> list[Example]:
        """The stage's own examples."""
        return self.sets[self.name].examples

    @property
    def mixed(self) -> list[Example]:
        """The examples of all mixes; also those that the control leaves out of every batch."""
        return [example for part in self.mixes.values() for example in part.examples]

    @property
    def mixes(self) -> dict[str, SourceSet]:
        """The examples of each mix by set name."""
        return {name: part for name, part in self.sets.items() if part.role == "mixed"}

    @property
    def size(self) -> int:
        """Number of examples of an epoch, including those that the control leaves out."""
        return sum(len(part.examples) for part in self.sets.values())

    def steps(self, epochs: int, batch_size: int) -> int:
        """Return the stage's optimiser steps; an epoch's last, partial batch is a step too."""
        whole = self.size // batch_size
        return epochs * (whole if self.drop_last else math.ceil(self.size / batch_size))

    def batches(self, seed: int, stage: int, epoch: int, batch_size: int) -> list[list[int]]:
        """Return batches of indices into the examples of all sets, concatenated.

        A pure function of its arguments: resuming needs no loader's state. The control has the
        batches of its mix with the mixed-in examples removed; a batch may then be empty.
        """
        drawn = [seed, stage, epoch if self.reshuffled else 0]
        order = np.random.default_rng(drawn).permutation(self.size).tolist()
        used = self.steps(1, batch_size) * batch_size
        trained = [part.trained for part in self.sets.values() for _ in part.examples]
        parts = (
            order[start : start + batch_size]
            for start in range(0, min(used, self.size), batch_size)
        )
        return [[i for i in part if trained[i]] for part in parts]

    def by_set(self, batch: Sequence[int]) -> dict[str, list[int]]:
        """Return a batch's examples by set, as indices into that set's own; a set may have none."""
        found: dict[str, list[int]] = {}
        start = 0
        for name, part in self.sets.items():
            end = start + len(part.examples)
            found[name] = [i - start for i in batch if start <= i < end]
            start = end
        return found


def planned_steps(stage: StageConfig, plan: StagePlan) -> int:
    """Return a stage's optimiser steps by its own configuration, unless a rule ends it earlier.

    Those of `stop.steps_of` are another run's: `geomix.training.reuse.with_steps` fills them in.
    """
    return stage.stop.steps or plan.steps(stage.stop.epochs, stage.train.batch_size)


Choose = Callable[[SourceConfig, Sequence[Example]], Sequence[str]]
"""Function that returns why a run cannot use each example of one of its sources; empty if it can.
It needs the model, and so comes from a higher layer: `geomix.experiments.filters`."""


def use_all(source: SourceConfig, examples: Sequence[Example]) -> Sequence[str]:  # noqa: ARG001
    """Accept every example: the choice before there is a model."""
    return [""] * len(examples)


def plan_stages(config: RunConfig, choose: Choose = use_all) -> list[StagePlan]:
    """Generate or read the examples of every stage.

    Args:
        config: the run.
        choose: decides which examples it can use; others of their source replace the rest.

    Raises:
        UserError: a source cannot give what the configuration requests.
    """
    plans: list[StagePlan] = []
    mistakes = Gathered()
    for index in range(len(config.stages)):
        with mistakes.each():
            plans.append(_plan_stage(config, index, plans, choose))
    if mistakes.lines:
        for evaluated, data in config.evaluate.sets.items():
            with mistakes.each(), written_at(config, "evaluate", "sets", evaluated):
                own_examples(data, config, choose)
    mistakes.check()
    return plans


@contextmanager
def written_at(config: RunConfig, *key: str | int) -> Iterator[None]:
    """Add to a mistake where the configuration names the missing data."""
    try:
        yield
    except OfKey as error:
        raise UserError(f"{config.location(*key, *error.key)}: {error.text}") from None


def _plan_stage(
    config: RunConfig, index: int, before: Sequence[StagePlan], choose: Choose
) -> StagePlan:
    """Plan the examples of one stage.

    Args:
        config: the run.
        index: of the stage.
        before: the stages before it, fewer if one of them cannot be planned.
        choose: as in `plan_stages`.
    """
    stage, name = config.stages[index], set_name(index)
    with written_at(config, "stages", index, "data"):
        sets = {name: own_examples(stage.data, config, choose)}
    own = len(sets[name].examples)
    sets |= mixed_sets(config, ("stages", index, "mix"), stage.mix, own, index, choose)
    if stage.replay is not None and len(before) == index:
        earlier = {plan.name: plan.own for plan in before}
        sets[REPLAY] = _replayed(stage.replay, earlier, config.seed, index)
    literal = config.paper_literal
    plan = StagePlan(
        name,
        sets,
        "fixed-order" not in literal,
        "drop-last" in literal,
        prompts_in_common(sets[name].examples, {plan.name: plan.own for plan in before}),
    )
    if not plan.steps(1, stage.train.batch_size):
        raise UserError(
            f"stages[{index}]: its {plan.size} examples are fewer than a batch of "
            f"{stage.train.batch_size}, which paper_literal's drop-last leaves out"
        )
    return plan


def own_examples(data: DataConfig, config: RunConfig, choose: Choose = use_all) -> SourceSet:
    """Return the examples of a stage's, or an evaluated set's, data."""
    request = request_of(data, data.limit, seed_of(data, config.seed), data.split)
    request = replace(request, unanswered="empty-answers" in config.paper_literal)
    advice = "set limit: {found}, or allow_repeat: true{left_over}"
    found = select(data.source, request, _short(data), advice, partial(choose, data))
    source = described(data.source, request)
    if data.familiar is not None:
        source["familiar"] = data.familiar.model_dump()
    return SourceSet(found.examples, source, dropped=found.dropped)


def _short(source: SourceConfig) -> Short:
    return "repeat" if source.allow_repeat else "error"


def request_of(
    source: SourceConfig, count: int | None, seed: int, split: Split = "train", words: int = 50
) -> Request:
    """Return the request that a part of the configuration makes; a count of None requests all."""
    return Request(
        count=MOST_EVERY if count is None else count,
        every=count is None,
        seed=seed,
        split=split,
        words=words,
        path=source.path,
        subset=source.subset,
        vocabulary=source.vocabulary,
        columns=source.columns,
        template=source.template,
    )


def mixed_sets(
    config: RunConfig,
    key: tuple[str | int, ...],
    mix: MixConfig | tuple[MixConfig, ...] | None,
    own: int,
    stage: int,
    choose: Choose = use_all,
    without: Collection[str] = (),
) -> dict[str, SourceSet]:
    """Return each mix's passages by set name: `ratio` per `own` example, rounded half up.

    A ratio of 0 gives none; one that rounds to none is a mistake. Two stages that mix the same
    generated source draw different passages, as do two mixes of it in one stage; from a finite or
    streamed source they draw in another order, so some may be the same. A mix's draw does not
    depend on mixes of other sources beside it.

    Args:
        config: the run.
        key: the mix's key in it, for messages.
        mix: the mix or mixes.
        own: number of the stage's own examples.
        stage: index of the stage.
        choose: as in `plan_stages`.
        without: names of sets to leave out.

    Raises:
        UserError: a source cannot give the requested examples.
    """
    found: dict[str, SourceSet] = {}
    mistakes = Gathered()
    known = mixes_of(mix)
    before: list[str] = []
    for number, (name, one) in enumerate(known.items()):
        at = (*key, number) if len(known) > 1 else key
        if one.ratio and name not in without:
            with mistakes.each(), written_at(config, *at):
                again = before.count(one.source)
                found[name] = _mixed(one, own, config.seed, (stage, again), at, choose)
        before.append(one.source)
    mistakes.check()
    return found


def _mixed(
    mix: MixConfig,
    own: int,
    seed: int,
    position: tuple[int, int],
    key: tuple[str | int, ...],
    choose: Choose,
) -> SourceSet:
    """Passages of one mix.

    Args:
        mix: it.
        own: how many examples the stage has of its own.
        seed: the run's.
        position: index of the stage, and how many mixes of the same source it has before this one.
        key: where it is written, for a message.
        choose: as in `plan_stages`.
    """
    count = rounded_share(mix.ratio, own)
    if count == 0:
        which = f"mix[{key[-1]}]" if isinstance(key[-1], int) else "mix"
        raise UserError(f"{which}.ratio {mix.ratio} of {own} examples is none; give a larger ratio")
    stage, again = position
    drawn = [seed_of(mix, seed), stage, *([again] if again else [])]
    derived = int(np.random.SeedSequence(drawn).generate_state(1)[0])
    request = request_of(mix, count, derived, words=mix.words)
    advice = "set a smaller ratio, or allow_repeat: true"
    found = select(mix.source, request, _short(mix), advice, partial(choose, mix))
    source = {**described(mix.source, request), "ratio": mix.ratio}
    return SourceSet(found.examples, source, not mix.passage_free, found.dropped, "mixed")


def _replayed(
    replay: ReplayConfig, earlier: Mapping[str, list[Example]], seed: int, stage: int
) -> SourceSet:
    """Draw examples of earlier stages without replacement: `ratio` of each, rounded half up.

    The choice is a pure function of the seed and the stage; a larger ratio includes a smaller
    one's.
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
    return SourceSet(found, source, role="replayed")


def rounded_share(ratio: float, of: int) -> int:
    """Return `ratio` times `of`, rounded half up, with the decimal ratio: 0.29 of 50 is 15."""
    return math.floor(Fraction(str(ratio)) * of + Fraction(1, 2))


def seed_of(source: SourceConfig, seed: int) -> int:
    """Return the source's own seed, else the run's."""
    return seed if source.seed is None else source.seed
