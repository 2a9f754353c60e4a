"""Divergences, displacements and forgetting of every arm's later stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from geomix.analysis.base import Log
from geomix.analysis.kl_law import LEAVE, Asked
from geomix.analysis.kl_law.fits import fitted, lacking
from geomix.analysis.kl_law.result import BASE, START, KLLaw, Point
from geomix.analysis.own_sets import own_stage
from geomix.analysis.replicates import check_tokenizers, replicates, seed_of
from geomix.config.names import checkpoint_name, letter_of
from geomix.data.example import TokenisedExample
from geomix.experiments.past_weights import folder_of
from geomix.experiments.stage_ends import StageEnds, distance
from geomix.measures.cross_validation import FORMS, whole_arms
from geomix.models.load import LoadedModel
from geomix.models.score import score
from geomix.models.set_divergence import set_divergences
from geomix.runs.directory import RunDirectory
from geomix.training.step import row_width
from geomix.util.errors import UserError
from geomix.util.progress import phase

Scores = tuple[float, float]
"""Mean nats an answer, and exact match in percent."""


def measure(runs: Sequence[RunDirectory], asked: Asked, log: Log) -> KLLaw:
    """Measure every arm and seed, and fit.

    Raises:
        UserError: an option is none of the choices, the set is no earlier stage's own, or a
            checkpoint is missing.
    """
    stage = own_stage(asked.name)
    for flag, value, known in (("form", asked.form, [*FORMS]), ("leave", asked.leave, LEAVE)):
        if value not in known:
            raise UserError(f"--{flag} {value[:40]}: there are {', '.join(known)}")
    pairs = [(run, arm) for run in runs for arm in run.arms]
    check_tokenizers([arm for _, arm in pairs])
    for _, arm in pairs:  # before anything takes long
        _check(arm, stage, asked.name)
    given = {str(arm.path): str(run.path) for run, arm in pairs}
    points: list[Point] = []
    for label, members in replicates(runs, pairs):
        for arm in members:
            with phase(f"{label}: divergences"):
                points += _points(label, given[str(arm.path)], arm, stage, asked, log)
    examples = next(iter(points)).divergences[asked.name, START].tokens
    why = lacking(points, asked.leave)
    fits = {} if why else fitted(points, asked.leave)
    blocks = whole_arms([p.arm for p in points], [(p.seed, p.stage) for p in points])
    return KLLaw(asked.name, len(examples), points, asked.leave, asked.form, fits, why, blocks)


def _check(arm: RunDirectory, stage: int, name: str) -> None:
    """Reject an arm without weights at an end, or without a stage that could forget the set.

    Raises:
        UserError: see there.
    """
    stages = len(arm.resolved()["config"]["stages"])
    if stage >= stages - 1:
        raise UserError(f"--set {name}: {arm.path} has no stage after its own that could forget it")
    for index in range(stage, stages):
        folder_of(arm, letter_of(index))


def _points(
    label: str, run: str, arm: RunDirectory, stage: int, asked: Asked, log: Log
) -> Iterator[Point]:
    """Yield a point for each stage after the set's own."""
    ends = StageEnds.open(arm)
    sets = {name: examples[: asked.facts] for name, examples in ends.sets.items() if examples}
    count, later = sum(map(len, sets.values())), len(ends.stages) - stage - 1
    log(
        f"{label}, seed {seed_of(arm)}: {count} answers read by three models of float32 in memory, "
        f"at the end of {later} stage{'s' * (later > 1)}; --facts N takes N of each set"
    )
    size = ends.config.evaluate.batch_size
    base = ends.model(0)
    width = row_width(ends.config.stages[-1].train, base)
    start = ends.model(stage + 1)
    before = _scores(start, sets[asked.name], size, width)
    for index in range(stage + 1, len(ends.stages)):
        now = ends.model(index + 1)
        after = _scores(now, sets[asked.name], size, width)
        found = {}
        with phase(checkpoint_name(index + 1), len(sets)) as advance:
            for name, examples in sets.items():
                both = {START: start, BASE: base}
                for to, one in set_divergences(now, both, examples, size, width).items():
                    found[name, to] = one
                advance(1)
        yield Point(
            arm=label,
            seed=seed_of(arm),
            run=run,
            stage=index,
            new=ends.stages[index].plan.name,
            forgotten=_forgotten(before, after),
            exact=(before[1], after[1]),
            length=distance(start, now),
            divergences=found,
        )
        start, before = now, after


def _scores(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], size: int, width: int | None
) -> Scores:
    answers = score(loaded, examples, size, width, exact_only=True)
    nats = float(np.mean([one.nll for one in answers]))
    return nats, 100 * float(np.mean([one.exact for one in answers]))


def _forgotten(before: Scores, after: Scores) -> Mapping[str, float]:
    """Return what a stage took: nats an answer, and points of exact match; positive is a loss."""
    return {"nats": after[0] - before[0], "exact_match": before[1] - after[1]}
