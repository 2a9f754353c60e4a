"""Courses of a set from the evaluations of runs, and the laws fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from geomix.analysis.curve import AXES, Asked
from geomix.analysis.curve.result import Arm, Course, Curve, Fitted, Floats
from geomix.analysis.past_checkpoints import ignored
from geomix.analysis.replicates import replicates, seed_of
from geomix.config.names import checkpoint_name, set_name, stage_of_set
from geomix.experiments.checkpoints import stored_checkpoints
from geomix.experiments.path_length import path_length
from geomix.measures.law_choice import choose
from geomix.measures.retention_laws import LEAST_POINTS, lacking
from geomix.measures.stability_gap import worst_case
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.runs.evaluations import (
    Evaluation,
    ExampleLine,
    common_facts,
    evaluations,
    tokens_by_step,
)
from geomix.util.errors import UserError
from geomix.util.reading import as_written

_LEAST_TAUGHT = float(np.log(2))
"""Least log-probability an answer that a stage must have added, one bit, in nats: shares of less
are shares of noise."""

Scored = list[tuple[Evaluation, list[ExampleLine]]]
"""Evaluations of one set, with its examples' lines."""


def measure(runs: Sequence[RunDirectory], asked: Asked) -> Curve:
    """Measure every arm of every run.

    Raises:
        UserError: the set is no stage's own, or no arm was evaluated after its stage.
    """
    stage = stage_of_set(asked.name)
    axes = [axis.strip() for text in asked.against for axis in text.split(",")]
    for axis in axes:
        if axis not in AXES:
            raise UserError(f"--against {axis[:40]}: there are: {', '.join(AXES)}")
    if stage is None:
        raise UserError(f"--set {asked.name[:40]}: give a stage's own set, such as D_A")
    arms = []
    for label, members in replicates(runs, [(run, arm) for run in runs for arm in run.arms]):
        found = [_course(arm, stage, axes) for arm in members]
        courses = [course for course in found if course is not None]
        if courses and (shared := _shared(courses)):
            fitted = [_fitted(shared, axis) for axis in dict.fromkeys(axes)]
            arms.append(Arm(label, shared, fitted))
    if not arms:
        raise UserError(
            f"{runs[0].path}: no evaluation of {asked.name} after its own stage; train a later "
            "stage, with evaluate: {steps: 10}"
        )
    return Curve(asked.name, checkpoint_name(stage + 1), arms)


def _course(arm: RunDirectory, stage: int, axes: Sequence[str]) -> Course | None:
    """Return the course of a stage's own set; None without an evaluation after the stage."""
    with as_written(arm.metrics_file):
        found = evaluations(arm)
    sets: dict[str, Scored] = {}
    for one in found:
        with as_written(one.file):
            for name, lines in one.lines().items():
                sets.setdefault(name, []).append((one, lines))
    own = sets.get(set_name(stage), [])
    ended = [i for i, (one, _) in enumerate(own) if one.stage == stage and one.ends]
    if not own or not ended or own[0][0].steps or len(own) == ended[0] + 1:
        return None
    chosen = [own[0], *own[ended[0] :]]
    with as_written(own[0][0].file):
        common = common_facts([lines for _, lines in chosen])
        scores = _scores(common)
    after = [one for one, _ in chosen[1:]]
    steps = [one.steps - after[0].steps for one in after]
    times: dict[str, Floats] = {"steps": np.array(steps, dtype=np.float64)}
    absent = {}
    for axis, timed in (("tokens", _tokens), ("length", _length)):
        if axis in axes:
            value = timed(arm, stage, after)
            if isinstance(value, str):
                absent[axis] = value
            else:
                times[axis] = value
    return Course(
        seed=seed_of(arm),
        run=str(arm.path),
        facts=len(common[0]),
        stages=[one.stage for one in after],
        within=[one.step for one in after],
        steps=steps,
        times=times,
        base=float(scores["log_probability"][0]),
        scores={name: values[1:] for name, values in scores.items()},
        worst=_worst(sets, stage),
        lacking=absent,
    )


def _scores(evaluated: Sequence[Sequence[ExampleLine]]) -> dict[str, Floats]:
    """Return the scores of each evaluation, means over its facts."""

    def mean(column: str) -> Floats:
        return np.array([np.mean([float(x[column]) for x in lines]) for lines in evaluated])

    found = {"log_probability": -mean("nll"), "exact_match": 100 * mean("exact")}
    if all(x.get("bits") is not None for lines in evaluated for x in lines):
        found["bits"] = mean("bits")
    return found


def _tokens(arm: RunDirectory, stage: int, after: Sequence[Evaluation]) -> Floats | str:
    """Return the tokens trained on since the end of a stage, at each evaluation."""
    with as_written(arm.metrics_file):
        by_step = tokens_by_step(arm)
        done = arm.steps_done()
    later = {index: steps for index, steps in done.items() if index > stage}
    positions = [(index, step) for index in sorted(later) for step in range(1, later[index] + 1)]
    if any(position not in by_step for position in positions):
        return "a later stage is another run's, whose tokens are not known"
    total = dict(
        zip(positions, accumulate(by_step[position] for position in positions), strict=True)
    )
    found = [0, *(total[one.stage, one.step] for one in after[1:])]
    return np.array(found, dtype=np.float64)


def _length(arm: RunDirectory, stage: int, after: Sequence[Evaluation]) -> Floats | str:
    """Return the length of the weights' path at each evaluation, between checkpoints linear."""
    ((_, config),) = stored_configs(arm).items()
    if any(one.train.lora is not None for one in config.stages[stage + 1 :]):
        return "a later stage trained adapters"
    done = arm.steps_done()
    kept: dict[int, Path] = {}
    for point in stored_checkpoints(arm, config, ignored):
        before = sum(steps for index, steps in done.items() if stage < index < point.stage)
        if point.folder is not None and (
            point.stage > stage or (point.stage == stage and point.last)
        ):
            kept[before + point.step if point.stage > stage else 0] = point.folder
    later = len(kept) - (0 in kept)
    if later < LEAST_POINTS:
        there = f"{later} checkpoint" + "s" * (later != 1)
        return f"weights of {there} after it, of 6 that belong (record.weights: true)"
    steps = [one.steps - after[0].steps for one in after]
    if 0 not in kept or max(kept) < steps[-1]:
        return f"no weights at {'its start' if 0 not in kept else 'the last evaluation'}"
    lengths = path_length([*kept.values()])
    found: Floats = np.interp(steps, list(kept), lengths)
    return found


def _worst(sets: Mapping[str, Scored], stage: int) -> list[tuple[int, float, float, float]]:
    """Return min-ACC and WC-ACC at the end of each stage after one, see `Course.worst`."""
    exact: dict[int, list[tuple[Evaluation, float]]] = {}
    for name, scored in sets.items():
        index = stage_of_set(name)
        if index is not None:
            common = _scores(common_facts([lines for _, lines in scored]))["exact_match"]
            exact[index] = [(one, float(x)) for (one, _), x in zip(scored, common, strict=True)]
    found = []
    for later in sorted(exact):
        ends = [(one, x) for one, x in exact[later] if one.stage == later and one.ends]
        if later <= stage or not ends:
            continue
        end, current = ends[0]
        lowest = [
            min(x for one, x in exact[k] if _after(one, k) and one.steps <= end.steps)
            for k in range(later)
            if k in exact
        ]
        found.append((later, current, *worst_case(current, lowest)))
    return found


def _after(one: Evaluation, stage: int) -> bool:
    """Return whether an evaluation is at the end of a stage, or later."""
    return one.stage > stage or (one.stage == stage and one.ends)


def _shared(courses: Sequence[Course]) -> list[Course]:
    """Return the courses at the steps that all of them have; none if there is no later one."""
    steps = set.intersection(*(set(course.steps) for course in courses))
    if len(steps) <= 1:
        return []
    found = []
    for course in courses:
        keep = [i for i, step in enumerate(course.steps) if step in steps]
        found.append(
            replace(
                course,
                stages=[course.stages[i] for i in keep],
                within=[course.within[i] for i in keep],
                steps=[course.steps[i] for i in keep],
                times={axis: time[keep] for axis, time in course.times.items()},
                scores={name: values[keep] for name, values in course.scores.items()},
            )
        )
    return found


def _fitted(courses: Sequence[Course], axis: str) -> Fitted:
    """Fit the laws to the courses of an arm's seeds against one time axis."""
    absent = [course.lacking[axis] for course in courses if axis in course.lacking]
    if absent:
        return Fitted(axis, np.zeros(0), np.zeros((len(courses), 0)), None, absent[0])
    times = np.mean([course.times[axis][1:] for course in courses], axis=0)
    least = min(course.taught for course in courses)
    if least < _LEAST_TAUGHT:
        why = f"hardly learnt: {least / np.log(2):.2g} bits an answer more than θ_0, of 1 at least"
        return Fitted(axis, times, np.full((len(courses), len(times)), np.nan), None, why)
    retention = np.array([course.retention[1:] for course in courses])
    if why := lacking(times):
        return Fitted(axis, times, retention, None, why)
    return Fitted(axis, times, retention, choose(times, retention))
