"""Training that has diverged is stopped."""

from __future__ import annotations

import math

from geomix.util.errors import UserError


def check_finite(stage: str, step: int, **numbers: float) -> None:
    """Stop a run that has diverged: every number after this one would be meaningless.

    Args:
        stage: its name.
        step: the step of it, from 1.
        **numbers: by the name that they have in `metrics.jsonl`.

    Raises:
        UserError: one of them is not finite.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise UserError(
                f"stage {stage}, step {step}: {name} is {number}; lower train.lr, or set train.clip"
            )
