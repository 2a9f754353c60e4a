"""Methods of a stage: the key `method`; each method declares its own options."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeFloat, SerializeAsAny

from geomix.config.data import Strict
from geomix.config.entries import entries


class MethodOptions(Strict):
    """Options common to all methods; a method adds its own."""

    name: Annotated[str, Field(min_length=1)]
    """Name of a registered method."""
    strength: NonNegativeFloat = 1.0
    """Strength, without a unit; 0 is plain training, bit for bit."""


Methods = Annotated[
    tuple[SerializeAsAny[MethodOptions], ...],
    BeforeValidator(
        partial(
            entries,
            base=MethodOptions,
            registry="geomix.training.methods:METHODS",
            kind="method",
        ),
        json_schema_input_type=str | dict[str, Any] | list[str | dict[str, Any]] | None,
    ),
]
"""Methods in the order in which they act."""
