"""Pairs of arms to compare, seed by seed, and runs that give the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geomix.analysis.controls import control_of
from geomix.analysis.replicates import check_tokenizers, replicates, seed_of
from geomix.config.names import role_of, set_name
from geomix.config.run import RunConfig
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.training.checkpoint import FINAL
from geomix.util.errors import UserError
from geomix.util.reading import as_written, read_json

PLAIN = "plain"
"""Name of the arm that is the reference, if there is one."""

_STAGES = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms to compare.

    Attributes:
        reference: label of the reference.
        other: label of the other arm; Δ > 0 means that it forgot less.
        judged: whether a verdict is given: none for an arm with a control, against the reference
            alone, because the effect of the control's steps would count as the mixing's.
    """

    reference: str
    other: str
    judged: bool

    def __str__(self) -> str:
        return f"{self.reference} → {self.other}"


@dataclass(frozen=True, slots=True)
class Member:
    """An arm of one seed.

    Attributes:
        label: the arm's label.
        seed: the run's seed.
        arm: its directory.
        config: its configuration.
        data: content of `data.json` for the first two stages.
    """

    label: str
    seed: int
    arm: RunDirectory
    config: RunConfig
    data: tuple[Mapping[str, Any], Mapping[str, Any]]

    def weight(self, stage: int, name: str) -> float:
        """Return a set's weight in the stage's mean loss; 0 if the stage does not train on it."""
        with as_written(data_file(self.arm, self.config, stage)):
            sets = self.data[stage]["sets"]
            reduction = self.config.stages[stage].train.loss
            return float(sets[name]["effective_weight"][reduction]) if name in sets else 0.0

    def mixed_weight(self, stage: int) -> float:
        """Return the weight of all mixed-in sets."""
        return sum(
            self.weight(stage, name) for name in self._sets(stage) if role_of(name) == "mixed"
        )

    def betas(self) -> dict[str, tuple[float, float]]:
        """Return β₁ and β₂ of each set mixed or replayed in stage 2; empty if there is none."""
        own = self.weight(1, set_name(1))
        others = [n for n in self._sets(1) if role_of(n) in ("mixed", "replayed")]
        weights = {name: self.weight(1, name) for name in others}
        return {name: (own, weight) for name, weight in weights.items() if weight}

    def same_data(self, other: Member) -> bool:
        """Return whether both were trained on the same D_A, then on the same D_B."""
        return all(self._hash(stage) == other._hash(stage) for stage in range(_STAGES))

    def same_examples(self, other: Member) -> bool:
        """Return whether both were trained on the same examples, in any order."""
        return all(self._sets(stage) == other._sets(stage) for stage in range(_STAGES))

    def _hash(self, stage: int) -> Any:
        return self._sets(stage)[set_name(stage)]

    def _sets(self, stage: int) -> dict[str, Any]:
        with as_written(data_file(self.arm, self.config, stage)):
            return {name: one["sha256"] for name, one in self.data[stage]["sets"].items()}


@dataclass(frozen=True, slots=True)
class Arms:
    """All arms and comparisons.

    Attributes:
        reference: label of the arm that all others are compared with.
        labels: labels of all arms, in their order.
        pairs: the comparisons; for an arm with a control: reference → control, control → arm and
            reference → arm.
        members: the arms by label and seed.
    """

    reference: str
    labels: tuple[str, ...]
    pairs: tuple[Pair, ...]
    members: Mapping[str, Mapping[int, Member]]

    @property
    def seeds(self) -> list[int]:
        """All seeds, in order of first occurrence."""
        return list(dict.fromkeys(seed for members in self.members.values() for seed in members))

    @property
    def controls(self) -> set[str]:
        """Labels of the arms between the reference and another."""
        return {pair.reference for pair in self.pairs} - {self.reference}

    def floors(self, label: str) -> list[tuple[int, int]]:
        """Return pairs of seeds that trained an arm on the same examples in another order."""
        members = list(self.members[label].values())
        return [
            (one.seed, other.seed)
            for i, one in enumerate(members)
            for other in members[i + 1 :]
            if one.same_examples(other)
        ]


def arms_of(runs: Sequence[RunDirectory], reference: str | None) -> Arms:
    """Gather the arms of one or several runs.

    Args:
        runs: the opened runs; those that differ only in the seed form one arm.
        reference: label of the arm that the others are compared with; None takes `plain`, else the
            first that mixes, replays and applies nothing, else the first.

    Raises:
        UserError: there is nothing to compare, or an arm lacks data that a comparison needs.
    """
    found = [(run, arm) for run in runs for arm in run.arms]
    check_tokenizers([arm for _, arm in found])
    members = {
        label: {seed_of(arm): _member(label, arm) for arm in group}
        for label, group in replicates(runs, found)
    }
    labels = tuple(members)
    configs = {label: next(iter(some.values())).config for label, some in members.items()}
    if len(labels) == 1:
        raise UserError(
            f"{runs[0].path}: one arm ({labels[0]}) has nothing to be compared with; give a run "
            "with arms, or the run of another arm behind it"
        )
    first = _reference(labels, configs, reference)
    arms = Arms(first, labels, tuple(_pairs(first, configs)), members)
    for pair in arms.pairs:
        _check(pair, members)
    return arms


def data_file(arm: RunDirectory, config: RunConfig, stage: int) -> Any:
    """Return the path of a stage's `data.json`."""
    return arm.stage_folder(stage, config.stage_name(stage)) / "data.json"


def _member(label: str, arm: RunDirectory) -> Member:
    """Return an arm whose weights at θ_A and θ_B exist."""
    (config,) = stored_configs(arm).values()
    if len(config.stages) < _STAGES:
        raise UserError(f"{arm.path}: it has one stage; Δ is of what a second one forgets")
    for stage in range(_STAGES):
        folder = arm.stage_folder(stage, config.stage_name(stage))
        if not (folder / "checkpoints" / FINAL).is_dir():
            raise UserError(
                f"{arm.path}: no weights at the end of stage {stage + 1}; finish it with "
                "`geomix train --resume`"
            )
        if config.stages[stage].train.lora is not None:
            raise UserError(
                f"{arm.path}: stage {stage + 1} trains adapters (train.lora), whose δ is none of "
                "the weights'; train it without to compare it"
            )
    first, second = (read_json(data_file(arm, config, stage)) for stage in range(_STAGES))
    return Member(label, seed_of(arm), arm, config, (first, second))


def _reference(labels: Sequence[str], configs: Mapping[str, RunConfig], asked: str | None) -> str:
    if asked is not None:
        if asked not in labels:
            raise UserError(f"--reference {asked}: no such arm; there are: {', '.join(labels)}")
        return asked
    if PLAIN in labels:
        return PLAIN
    return next((label for label in labels if _is_plain(configs[label])), labels[0])


def _is_plain(config: RunConfig) -> bool:
    return not any(stage.mix or stage.replay or stage.method for stage in config.stages)


def _pairs(reference: str, configs: Mapping[str, RunConfig]) -> list[Pair]:
    """Pair each arm with the reference, and with its control if it has one."""
    pairs: dict[tuple[str, str], Pair] = {}
    others = [label for label in configs if label != reference]
    for label in others:
        control = control_of(label, {one: configs[one] for one in others})
        if control is not None:
            pairs.setdefault((reference, control), Pair(reference, control, True))
            pairs[control, label] = Pair(control, label, True)
        pairs.setdefault((reference, label), Pair(reference, label, control is None))
    order = list(pairs)
    order.sort(key=lambda pair: pair[0] == reference and not pairs[pair].judged)
    return [pairs[key] for key in order]


def _check(pair: Pair, members: Mapping[str, Mapping[int, Member]]) -> None:
    one, other = members[pair.reference], members[pair.other]
    shared = [seed for seed in one if seed in other]
    if not shared:
        raise UserError(
            f"{pair}: no seed is common to both (seeds {', '.join(map(str, one))} and "
            f"{', '.join(map(str, other))}); train both with the same seeds"
        )
    for seed in shared:
        if not one[seed].same_data(other[seed]):
            raise UserError(
                f"{other[seed].arm.path}: its D_A or D_B are not those of {one[seed].arm.path}; "
                "Δ compares what two arms forget of the same facts"
            )
