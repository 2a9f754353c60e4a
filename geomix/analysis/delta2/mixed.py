"""The D_M of an arm: the sets that its stage mixes in, else recorded ones."""

from __future__ import annotations

from geomix.config.names import role_of
from geomix.experiments.precise import PreciseArm
from geomix.gradients.products import SetObjective


def mixed_names(arm: PreciseArm, stage: int) -> list[str]:
    """Return the names of the sets that a stage mixes in; else of the mixed-in probe sets.

    Args:
        arm: the arm.
        stage: index from 0.
    """
    own = [name for name in arm.stages[stage].tokenised if role_of(name) == "mixed"]
    return own or [name for name in arm.sets if role_of(name) == "mixed"]


def mixed_objective(arm: PreciseArm, facts: int | None) -> SetObjective | None:
    """Return the mean loss of stage 1's D_M; for several mixes that of their union.

    Args:
        arm: the arm.
        facts: most examples of each mix.

    Returns:
        None if the arm has no D_M.
    """
    examples = [one for name in mixed_names(arm, 0) for one in arm.examples(name, 0)[:facts]]
    return arm.objective_of(examples) if examples else None
