"""Detection of training that has diverged."""

from __future__ import annotations

import math

from geomix.util.errors import UserError


def check_finite(stage: str, step: int, **numbers: float) -> None:
    """Stop a run that has diverged: every later number would be meaningless.

    Args:
        stage: its name.
        step: the step within it, from 1.
        **numbers: by their name in `metrics.jsonl`.

    Raises:
        UserError: one of them is not finite.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise UserError(
                f"stage {stage}, step {step}: {name} is {number}; lower train.lr, or set train.clip"
            )
