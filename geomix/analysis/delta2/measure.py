"""Measurement of each arm, the reference last, and its comparison with those measured before."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from geomix.analysis.base import Log
from geomix.analysis.delta2.arms import Arms, Member, Pair
from geomix.analysis.delta2.compare import Comparison, compare, from_gradients
from geomix.analysis.delta2.draws import cross_terms
from geomix.analysis.delta2.ends import Base, Ends, base_of, ends_of
from geomix.analysis.delta2.mixed import mixed_names, mixed_objective
from geomix.analysis.delta2.path import CrossTerms, Tested, condition_along
from geomix.analysis.delta2.result import ArmRow, Delta2
from geomix.analysis.layout import SlicedParameters
from geomix.analysis.parameter_groups import Layout
from geomix.config.names import HELD_OUT, REPLAY, role_of, set_name
from geomix.data.batch import Batch
from geomix.experiments.precise import PreciseArm
from geomix.gradients.products import SetObjective
from geomix.gradients.spill import Keep, in_memory, on_disk
from geomix.gradients.vectors import Vector
from geomix.util.progress import phase

_MEMORY = 2 << 30
"""Most bytes of all arms' θ_A and gradients to keep in memory."""

_HALF = (0.5, 0.5)
"""Weights for sets not mixed into stage 2: any that sum to one give the same condition."""


@dataclass
class _SoFar:
    """Measurements so far."""

    ends: dict[tuple[str, int], Ends] = field(default_factory=dict)
    bases: dict[tuple[str, int], Base] = field(default_factory=dict)
    rows: dict[tuple[str, int], ArmRow] = field(default_factory=dict)
    tested: dict[str, dict[int, tuple[Tested, ...]]] = field(default_factory=dict)
    comparisons: dict[Pair, dict[int, Comparison]] = field(default_factory=dict)
    draws: dict[int, CrossTerms] = field(default_factory=dict)
    engines: list[tuple[list[Batch], Base]] = field(default_factory=list)
    counted: str = ""
    layout: Layout | None = None


def measure(arms: Arms, facts: int | None, draws: int, parts: bool, log: Log) -> Delta2:
    """Measure every arm and every comparison.

    Args:
        arms: the arms and comparisons.
        facts: most examples of each set; the first ones are taken.
        draws: draws of D_M, for the cross terms; 0 leaves them out.
        parts: leave out all but Δ, its parts and the exact terms.
        log: receives a line per finished arm.

    Raises:
        UserError: a set or a checkpoint is missing.
    """
    so_far = _SoFar()
    references = {pair.reference for pair in arms.pairs}
    order = sorted(arms.labels, key=lambda one: (one == arms.reference, one in references))
    for seed in arms.seeds:
        for label in order:
            if seed in arms.members[label]:
                _arm(so_far, arms, arms.members[label][seed], facts, draws, parts)
                log(f"{label}, seed {seed}: measured")
    floors = {
        label: {
            (one, other): from_gradients(
                so_far.ends[label, one], so_far.ends[label, other], so_far.bases.get((label, one))
            )
            for pair in arms.floors(label)
            for one, other in (pair, pair[::-1])
        }
        for label in arms.labels
    }
    assert so_far.layout is not None
    first = next(iter(arms.members[arms.reference].values()))
    return Delta2(
        arms=arms,
        rows=tuple(
            so_far.rows[key] for label in arms.labels for key in so_far.rows if key[0] == label
        ),
        comparisons={pair: so_far.comparisons.get(pair, {}) for pair in arms.pairs},
        floors=floors,
        tested={label: so_far.tested[label] for label in arms.labels if label in so_far.tested},
        draws=so_far.draws,
        layout=so_far.layout,
        counted=so_far.counted,
        reduction=first.config.stages[0].train.loss,
        without_path=tuple(
            label
            for label, found in so_far.tested.items()
            if not any("+" in row.checkpoint for some in found.values() for row in some)
        ),
    )


def _arm(
    so_far: _SoFar, arms: Arms, member: Member, facts: int | None, draws: int, parts: bool
) -> None:
    key = member.label, member.seed
    name = f"{member.label}, seed {member.seed}"
    with phase(f"{name}: loading"):
        arm = PreciseArm.open(member.arm)
    own, later = (arm.objective(set_name(stage), facts=facts) for stage in range(2))
    so_far.counted = own.counted
    so_far.layout = (
        so_far.layout or SlicedParameters.of(arm.loaded.model, arm.parameters, heads=False).layout
    )
    keep = _shelf(arm, len(arms.labels) * len(arms.seeds))
    with phase(f"{name}: losses and gradients at both ends"):
        ends = ends_of(arm, own, later, arm.weights("A"), arm.weights("B"))
        ends = _kept(ends, keep)
        if not parts and (mixed := mixed_objective(arm, facts)) is not None:
            so_far.bases[key] = _base(so_far, arm, own, mixed)
    so_far.ends[key] = ends
    so_far.rows[key] = _row(member, ends)
    if member.label not in arms.controls and not parts:
        with phase(f"{name}: the stage-2 condition along its checkpoints"):
            found = _conditions(arm, member, (own, later), ends, facts)
        so_far.tested.setdefault(member.label, {})[member.seed] = found
    for pair in arms.pairs:
        other = arms.members[pair.other].get(member.seed)
        if pair.reference == member.label and other is not None:
            theirs = so_far.ends[pair.other, member.seed]
            base = so_far.bases.get((pair.other, member.seed)) or so_far.bases.get(key)
            weight = other.mixed_weight(0)
            with phase(f"{pair}, seed {member.seed}: products and reach"):
                compared = (
                    from_gradients(ends, theirs)
                    if parts
                    else compare(ends, theirs, arm, own, later, base, weight)
                )
            so_far.comparisons.setdefault(pair, {})[member.seed] = compared
    if draws and member.label == arms.reference:
        so_far.draws[member.seed] = cross_terms(arm, arms, member, ends, (own, later), draws)


def _base(so_far: _SoFar, arm: PreciseArm, own: SetObjective, mixed: SetObjective) -> Base:
    """Return gradients at θ_0; arms that start alike with one D_A and D_M share them."""
    theta, batches = arm.weights("0"), [*own.batches, *mixed.batches]
    for known, base in so_far.engines:
        if _same_batches(known, batches) and _same_weights(base.theta, theta):
            return base
    base = base_of(arm, own, mixed, theta)
    so_far.engines.append((batches, base))
    return base


def _same_batches(one: list[Batch], other: list[Batch]) -> bool:
    def same(a: Batch, b: Batch) -> bool:
        pairs = ((a.ids, b.ids), (a.targets, b.targets), (a.weights, b.weights))
        return all(torch.equal(x, y) for x, y in pairs)

    return len(one) == len(other) and all(map(same, one, other))


def _same_weights(one: Vector, other: Vector) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def _conditions(
    arm: PreciseArm,
    member: Member,
    objectives: tuple[SetObjective, SetObjective],
    ends: Ends,
    facts: int | None,
) -> tuple[Tested, ...]:
    weights = member.betas()
    null = next(iter(weights.values()), _HALF)
    named = [*mixed_names(arm, 1), *([REPLAY] * (REPLAY in weights)), HELD_OUT]
    others = {
        name: (arm.objective(name, 1, facts), *weights.get(name, null))
        for name in named
        if name in arm.sets
    }
    names = [name for name in arm.checkpoints if name.split("+")[0] == "A"] + ["B"]
    weighted = ((name, ends.theta if name == "A" else arm.weights(name)) for name in names)
    known = {"A": (ends.own, ends.later)}
    return tuple(condition_along(arm, weighted, *objectives, others, known)) if others else ()


def _row(member: Member, ends: Ends) -> ArmRow:
    return ArmRow(
        member.label,
        member.seed,
        str(member.arm.path),
        ends.start,
        ends.end,
        ends.later_start,
        ends.later_end,
        ends.slope,
        ends.moved,
        update_share(member),
    )


def update_share(member: Member) -> float:
    """Return D_M's mean share of the update over stage 1's steps; nan without a record."""
    shares = []
    for line in member.arm.metrics():
        if line.get("event") == "step" and line.get("stage") == 0:
            known = line.get("update_shares")
            if isinstance(known, dict):
                mixed = [value for name, value in known.items() if role_of(name) == "mixed"]
                shares.append(sum(value for value in mixed if isinstance(value, float)))
    return sum(shares) / len(shares) if shares else float("nan")


def _shelf(arm: PreciseArm, arms: int) -> Keep:
    size = sum(p.numel() for p in arm.parameters.values())
    return in_memory if 3 * arms * size * 4 <= _MEMORY else on_disk(arm.arm.analysis_folder)


def _kept(ends: Ends, keep: Keep) -> Ends:
    """Return a copy with its vectors in memory, or on disk if they are too large."""

    def put(vector: Vector) -> Vector:
        kept = keep(list(vector.values()))
        return {name: _tensor(t) for name, t in zip(vector, kept, strict=True)}

    return Ends(
        ends.start,
        ends.end,
        ends.later_start,
        ends.later_end,
        ends.slopes,
        ends.moved,
        put(ends.theta),
        put(ends.own),
        put(ends.later),
    )


def _tensor(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
