"""Measurement: opens arms, pairs their checkpoints, and measures each one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from geomix.analysis.controls import control_of
from geomix.analysis.forgetting.expansion import Expansion, expand, expansions, permuted
from geomix.analysis.forgetting.result import Arm, Forgetting, Member, contrasts_of
from geomix.analysis.forgetting.segments import Path, follow, spread
from geomix.analysis.forgetting.sharpness import Sharpness, sharpness
from geomix.analysis.layout import SlicedParameters
from geomix.analysis.parameter_groups import Layout, grouped, same_parameters
from geomix.analysis.replicates import check_tokenizers, replicates, seed_of
from geomix.config.names import checkpoint_name, set_name
from geomix.config.run import RunConfig
from geomix.config.stage_names import stage_index
from geomix.experiments.checkpoints import stored_checkpoints
from geomix.experiments.precise import PreciseArm
from geomix.gradients.vectors import dot, minus
from geomix.measures.expansions import Level
from geomix.measures.path_factors import paired_points
from geomix.models.load import quiet_libraries
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.progress import phase

if TYPE_CHECKING:
    from geomix.analysis.forgetting import Asked

FEWEST = 4
"""Fewest segments of a path: with fewer, its split could not be checked against half of them."""


@dataclass(frozen=True, slots=True)
class _Given:
    """An arm to be measured, before anything is loaded.

    Attributes:
        arm: its directory.
        config: its configuration.
        names: its checkpoints from the stage's start to its end.
        steps: of the stage, at each.
    """

    arm: RunDirectory
    config: RunConfig
    names: tuple[str, ...]
    steps: tuple[int, ...]

    @property
    def shares(self) -> list[Fraction]:
        return [Fraction(step, self.steps[-1]) for step in self.steps]


def measure(runs: Sequence[RunDirectory], asked: Asked) -> Forgetting:
    """Measure every arm of every run.

    Raises:
        UserError: an option's value does not fit, a checkpoint is missing, or the runs cannot be
            combined.
    """
    quiet_libraries()
    if asked.expansions & (asked.expansions - 1):
        raise UserError(f"--expansions {asked.expansions}: give 0 or a power of two, such as 16")
    found = [(run, arm) for run in runs for arm in run.arms if arm.resolved_file.is_file()]
    if not found:
        raise UserError(f"{runs[0].path}: no arm has begun")
    check_tokenizers([arm for _, arm in found])
    configs = {arm: next(iter(stored_configs(arm).values())) for _, arm in found}
    stage = _stage(asked.stage, list(configs.values()))
    given = {arm: _given(arm, configs[arm], stage) for _, arm in found}
    groups = replicates(runs, found)
    with_path = [arm for arm in given if len(given[arm].names) > FEWEST]
    points = {arm: paired_points([given[arm].shares], asked.segments)[0][0] for arm in with_path}
    layout: Layout | None = None
    arms = []
    known = {label: configs[members[0]] for label, members in groups}
    for label, members in groups:
        done = []
        for arm in members:
            member, own = _Measured(given[arm], stage, asked, points.get(arm)).member()
            if layout is not None and not same_parameters(own, layout):
                raise UserError(f"{arm.path}: it trains other parameters than the first run or arm")
            layout = layout or own
            done.append(member)
        arms.append(Arm(label, tuple(done)))
    assert layout is not None
    names, index = grouped(layout, asked.by)
    titles = dict.fromkeys(config.stage_name(stage) for config in configs.values())
    return Forgetting(
        name=asked.name,
        stage=stage,
        stage_name=" or ".join(filter(None, titles)),
        start=checkpoint_name(stage),
        end=checkpoint_name(stage + 1),
        by=asked.by,
        groups=tuple(names),
        index=index,
        arms=tuple(arms),
        contrasts=contrasts_of(arms, {a: c for a in known if (c := control_of(a, known))}),
        without_path=tuple(
            f"{label} ({len(given[members[0]].names) - 1})"
            for label, members in groups
            if members[0] not in points
        ),
    )


def _stage(asked: str | None, configs: Sequence[RunConfig]) -> int:
    """Return the index of the stage: the requested one, or the last one that all arms have."""
    shortest = min(len(config.stages) for config in configs)
    if asked is None:
        return shortest - 1
    names: dict[int, set[str]] = {}
    for config in configs:
        for index in range(shortest):
            names.setdefault(index, set()).add(config.stage_name(index))
    return stage_index(asked, names)


def _given(arm: RunDirectory, config: RunConfig, stage: int) -> _Given:
    """Return the checkpoints of a stage.

    Raises:
        UserError: the stage's start or end is missing.
    """
    points = stored_checkpoints(arm, config, lambda _: None)
    known = [p for p in points if p.stage == stage and (p.step or not stage)]
    starts = stage == 0 or any(p.stage == stage - 1 and p.last for p in points)
    if not starts or not known or not known[-1].last:
        missing = checkpoint_name(stage + 1 if starts else stage)
        raise UserError(f"{arm.path}: no weights of {missing}; finish it with `geomix train`")
    start = checkpoint_name(stage).removeprefix("θ_")
    end = checkpoint_name(stage + 1).removeprefix("θ_")
    steps = [p.step for p in known if p.step]
    names = [end if p.last else f"{start}+{p.step}" for p in known if p.step]
    if len(steps) > 1 and steps[-1] == steps[-2]:  # its last step is kept as the stage's end too
        del steps[-2], names[-2]
    return _Given(arm, config, (start, *names), (0, *steps))


class _Measured:
    """One arm with its model loaded."""

    def __init__(
        self, given: _Given, stage: int, asked: Asked, points: Sequence[int] | None
    ) -> None:
        self._given, self._stage, self._asked, self._points = given, stage, asked, points
        self._arm = PreciseArm.open(given.arm)
        self._objective = self._arm.objective(asked.name, facts=asked.facts)
        self._start = self._arm.weights(given.names[0])
        self._x = minus(self._arm.weights(given.names[-1]), self._start)

    def member(self) -> tuple[Member, Layout]:
        """Measure everything; return it with the layout of its parameters."""
        own = SlicedParameters.of(self._arm.loaded.model, self._arm.parameters, heads=False).layout
        real, end = self._expanded()
        null = [self._null(draw) for draw in range(self._asked.draws)]
        levels = self._levels(real.change)
        names = () if self._points is None else tuple(self._given.names[i] for i in self._points)
        path = self._path(names) if names else None
        member = Member(
            run=str(self._given.arm.path),
            seed=seed_of(self._given.arm),
            counted=self._objective.counted,
            reduction=self._objective.reduction,
            real=real,
            end=end,
            null=tuple(null),
            levels=levels,
            path=path,
            names=names,
            sharpness=tuple(self._sharpness()),
        )
        return member, own

    def _expanded(self) -> tuple[Expansion, float]:
        with phase(f"{self._given.arm.name}: expanding at {self._given.names[0]}"):
            found = expand(self._arm, self._objective, self._start, self._x)
            self._arm.move_to(self._start, self._x, 1.0)
            return found, dot(self._objective.gradient(), self._x)

    def _null(self, draw: int) -> Expansion:
        with phase(f"{self._given.arm.name}: permuted displacement {draw + 1}"):
            x = permuted(self._x, draw)
            return expand(self._arm, self._objective, self._start, x, gauss_newton=False)

    def _levels(self, change: float) -> tuple[Level, ...]:
        count = self._asked.expansions
        if not count:
            return ()
        with phase(f"{self._given.arm.name}: {count} expansions"):
            where = (self._arm, self._objective, self._start, self._x)
            return tuple(expansions(*where, count, change))

    def _path(self, names: Sequence[str]) -> Path:
        assert self._points is not None
        steps = [self._given.steps[i] for i in self._points]
        with phase(f"{self._given.arm.name}: path, segments", len(steps) - 1) as advance:
            weights = self._arm.weights
            return follow(self._arm, self._objective, weights, names, steps, advance)

    def _sharpness(self) -> list[Sharpness]:
        """Measure along segments 0, 1, 2, 4, … of those kept, for the stage's set and this one."""
        names, steps = self._given.names, self._given.steps
        own = set_name(self._stage)
        sets = {self._asked.name: self._objective}
        if own != self._asked.name:
            sets = {own: self._arm.objective(own, facts=self._asked.facts), **sets}
        segments = spread(len(names) - 1)
        found = []
        with phase(f"{self._given.arm.name}: sharpness, segments", len(segments)) as advance:
            for k in segments:
                start = self._arm.weights(names[k])
                d = minus(self._arm.weights(names[k + 1]), start)
                count = steps[k + 1] - steps[k]
                for name, objective in sets.items():
                    where = (names[k], count, name)
                    found.append(sharpness(self._arm, objective, start, d, where))
                advance(1)
        return found


def null_mean(member: Member) -> tuple[float, float]:
    """Return mean change and curvature along the permuted displacement; nan without draws."""
    if not member.null:
        return float("nan"), float("nan")
    changes = [one.change for one in member.null]
    return float(np.mean(changes)), float(np.mean([one.curvature for one in member.null]))
