"""Claim (a): do the printed cross terms vanish on average over draws of D_M?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from geomix.analysis.delta2.arms import Arms, Member
from geomix.analysis.delta2.ends import Ends
from geomix.analysis.delta2.path import CrossTerms, cross_direction
from geomix.analysis.past_checkpoints import with_shuffled_labels
from geomix.config.data import Mix
from geomix.config.names import set_name
from geomix.data.example import TokenisedExample
from geomix.data.provenance import tokens_hash
from geomix.experiments.draws import drawn_passages
from geomix.experiments.precise import PreciseArm
from geomix.gradients.objective import Objective
from geomix.gradients.vectors import dot
from geomix.util.errors import UserError
from geomix.util.progress import phase

FIRST_SEED = 1_000_000
"""Seed of the first draw: far from the seeds of training runs."""


def cross_terms(
    arm: PreciseArm,
    arms: Arms,
    member: Member,
    ends: Ends,
    objectives: tuple[Objective, Objective],
    count: int,
) -> CrossTerms:
    """Compute T for several draws of D_M, at the reference's θ_A.

    Args:
        arm: the reference's model.
        arms: all arms, whose configurations give the source of D_M.
        member: the reference of this seed.
        ends: its θ_A and the gradients there.
        objectives: loss of D_A and of D_B under its model.
        count: number of draws.

    Raises:
        UserError: no arm has a D_M to draw from, or its source gives the same passages every time.
    """
    mix, weight = _mix(arms, member)
    v = cross_direction(ends, arm, *objectives)
    arm.move_to("0")
    offset = dot(v, arm.objective(set_name(0)).gradient())
    drawn, null = [], []
    with phase(f"{member.label}, seed {member.seed}: draws of D_M", count) as advance:
        for passages in _different(arm, mix, count):
            objective = arm.objective_of(passages)
            drawn.append(-dot(v, objective.gradient()))
            permuted = replace(objective, batches=with_shuffled_labels(objective.batches))
            null.append(-dot(v, permuted.gradient()))
            advance(1)
    return CrossTerms(tuple(drawn), tuple(null), offset, weight)


def _different(arm: PreciseArm, mix: Mix, count: int) -> Iterator[list[TokenisedExample]]:
    hashes: set[str] = set()
    for k in range(count):
        passages = drawn_passages(arm, mix, FIRST_SEED + k)
        found = tokens_hash(passages)
        if found in hashes:
            raise UserError(
                f"--draws {count}: the mix gives the same passages for two seeds; "
                "take fewer draws, or a source that draws, such as random-words"
            )
        hashes.add(found)
        yield passages


def _mix(arms: Arms, member: Member) -> tuple[Mix, float]:
    """Return the source of D_M, and its weight in stage 1 of an arm that trains on it."""
    same = [found[member.seed] for found in arms.members.values() if member.seed in found]
    mixing = [one for one in same if one.config.stages[0].mix]
    mixing.sort(key=lambda one: -one.mixed_weight(0))
    if mixing:
        return mixing[0].config.stages[0].mix, mixing[0].mixed_weight(0) or float("nan")
    for one in same:
        if one.config.record is not None and one.config.record.mix:
            return one.config.record.mix, float("nan")
    raise UserError(f"--draws: no arm of {member.arm.path} mixes in, or records, a D_M")
