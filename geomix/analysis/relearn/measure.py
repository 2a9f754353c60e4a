"""Retraining of every arm of every run, from its kept checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from geomix.analysis.base import Log
from geomix.analysis.own_sets import own_stage
from geomix.analysis.relearn import RATES, STEPS, Asked
from geomix.analysis.relearn.bench import Bench
from geomix.analysis.relearn.result import ANOTHER, UNSEEN, Arm, Member, Relearn
from geomix.analysis.replicates import replicates, seed_of
from geomix.config.names import HELD_OUT, checkpoint_name, letter_of, set_name
from geomix.experiments.past_weights import model_at
from geomix.experiments.precise import PreciseArm, checkpoints_of
from geomix.experiments.retrain import plain_training, retrained
from geomix.gradients.inner_products import undisturbed
from geomix.gradients.vectors import Vector
from geomix.measures.relearning import cue_count
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.progress import duration, phase
from geomix.util.reading import as_written


def measure(runs: Sequence[RunDirectory], asked: Asked, log: Log) -> Relearn:
    """Measure every arm and seed.

    Raises:
        UserError: an option is none of the choices, the set is no earlier stage's own, or a
            checkpoint is missing.
    """
    stage = own_stage(asked.name)
    for flag, value, known in (("step", asked.step, STEPS), ("rate", asked.rate, RATES)):
        if value not in known:
            there = ", ".join(f"{one:g}" for one in known)
            raise UserError(f"--{flag} {value:g}: there are {there}")
    pairs = [(run, arm) for run in runs for arm in run.arms]
    for _, arm in pairs:  # before anything takes long
        _check(arm, stage, asked.name)
    groups = replicates(runs, pairs)
    arms = []
    for label, members in groups:
        found = []
        for i, arm in enumerate(members):
            other = members[(i + 1) % len(members)] if len(members) > 1 else None
            with phase(f"{label}: relearning"):
                found.append(_member(arm, other, stage, asked, log, len(pairs)))
        arms.append(Arm(label, found))
    stages = len(runs[0].arms[0].resolved()["config"]["stages"])
    ends = (checkpoint_name(stage + 1), checkpoint_name(stages))
    return Relearn(asked.name, *ends, set_name(stages - 1), arms)


def _check(arm: RunDirectory, stage: int, name: str) -> None:
    """Reject an arm without the weights, or whose later stages are none.

    Raises:
        UserError: see there.
    """
    (config,) = stored_configs(arm).values()
    if stage >= len(config.stages) - 1:
        raise UserError(f"--set {name}: {arm.path} has no stage after its own that could forget it")
    for index in (stage, len(config.stages) - 1):
        if config.stages[index].train.lora is not None:
            raise UserError(
                f"{arm.path}: stage {index + 1} trained adapters (train.lora), which its "
                "checkpoints have merged; relearning needs a run that trains weights"
            )
    there = checkpoints_of(arm)
    for letter in (letter_of(stage), letter_of(len(config.stages) - 1)):
        if letter not in there:
            raise UserError(f"{arm.path}: no weights of θ_{letter}; there are {', '.join(there)}")


def _member(
    run: RunDirectory,
    other: RunDirectory | None,
    stage: int,
    asked: Asked,
    log: Log,
    count: int,
) -> Member:
    """Measure one arm of one seed; `other` is the same arm of another seed."""
    arm = PreciseArm.open(run, attention=None)
    with undisturbed(arm.loaded.model):
        bench, lacking = bench_of(arm, other, stage, asked)
        scores = {"base": bench.scores(bench.base)}
        scores["start"] = bench.scores(arm.weights(letter_of(stage)))
        began = time.monotonic()
        scores["end"] = bench.scores(bench.end)
        lost = scores["start"].right & ~scores["end"].right
        budget = asked.budget
        if budget is None:
            budget = 2 * max(1, arm.stages[stage].steps)
        _report(bench, int(lost.sum()), asked, budget, time.monotonic() - began, log, count)
        courses = []
        with phase("cues and nulls", bench.course_count(int(lost.sum()), asked)) as advance:
            for course in bench.courses(lost, asked):
                courses.append(course)
                advance(1)
        relearnt = list(bench.relearnt(asked, budget))
    return Member(
        seed=seed_of(run),
        run=str(run.path),
        texts=[(fact.text.prompt, fact.text.target) for fact in bench.facts],
        known=all(fact.text.entropy for fact in bench.facts),
        scores=scores,
        named=(asked.step, asked.rate),
        courses=courses,
        relearnt=relearnt,
        budget=budget,
        lacking=lacking,
    )


def bench_of(
    arm: PreciseArm, other: RunDirectory | None, stage: int, asked: Asked
) -> tuple[Bench, dict[str, str]]:
    """Return an arm's bench, and why nulls are absent, by their kind."""
    last = len(arm.stages) - 1
    facts = arm.stages[stage].own[: asked.facts]
    later = arm.stages[last].own[: asked.facts]
    held_out = arm.examples(HELD_OUT)[: asked.facts] if stage == 0 and HELD_OUT in arm.sets else []
    lacking: dict[str, str] = {}
    if len(held_out) < len(facts):
        have = f"{len(held_out)} unseen facts of its source, {len(facts)} belong"
        lacking[UNSEEN] = have if stage == 0 else "only the first stage has a held-out set"
    another: Vector | None = None
    if other is None:
        lacking[ANOTHER] = "give a run of another seed beside this one"
    elif why := _unlike(arm, other, stage):
        lacking[ANOTHER] = why
    else:
        theirs = dict(model_at(other, letter_of(last)).model.named_parameters())
        another = {name: theirs[name].detach().to(p) for name, p in arm.parameters.items()}
    base, end = arm.weights("0"), arm.weights(letter_of(last))
    return Bench(arm, stage, facts, later, held_out, base, end, another), lacking


def _unlike(arm: PreciseArm, other: RunDirectory, stage: int) -> str:
    """Return why another run's last model is no null; empty if it learnt other facts."""
    (config,) = stored_configs(other).values()
    file = other.stage_folder(stage, config.stage_name(stage)) / "examples.jsonl"
    mine = {fact.text.prompt for fact in arm.stages[stage].own}
    with as_written(file), file.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
        shared = sum(one["set"] == set_name(stage) and one["prompt"] in mine for one in found)
    if shared:
        return f"the run of seed {config.seed} learnt {shared} of the same facts"
    return ""


def _report(
    bench: Bench, lost: int, asked: Asked, budget: int, scoring: float, log: Log, count: int
) -> None:
    """Report the expected cost of an arm, from one timed scoring and one timed step."""
    last = len(bench.arm.stages) - 1
    train = plain_training(bench.arm.config.stages[last].train)
    cues = list(bench.facts[: max(1, cue_count(lost))])
    began = time.monotonic()
    for _ in retrained(bench.arm, bench.end, train, last, [cues]):
        pass
    stepping = time.monotonic() - began
    runs = bench.course_count(lost, asked)
    steps = runs * STEPS[-1] + 3 * budget
    scorings = runs * (len(STEPS) + 1) + asked.draws * len(RATES) * len(STEPS) + 60 * bool(budget)
    said = f"at most {steps} steps and {scorings} scorings of the set"
    seconds = steps * stepping + scorings * scoring
    whole = f"{said}, about {duration(seconds)} for this arm"
    whole += f", one of {count}" * (count > 1)
    log(f"{whole}. --facts N takes N facts of each set, --budget 0 leaves relearning out")
    with phase(whole, long=True):  # has a line also where nothing is a terminal
        pass
