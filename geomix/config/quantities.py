"""Quantities of a record: the key `quantities`; each quantity declares its own options."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from geomix.config.data import Strict
from geomix.config.entries import entries


class QuantityOptions(Strict):
    """Options common to all quantities; a quantity adds its own."""

    name: Annotated[str, Field(min_length=1)]
    """Name of a registered quantity."""


Quantities = Annotated[
    tuple[SerializeAsAny[QuantityOptions], ...],
    BeforeValidator(
        partial(
            entries,
            base=QuantityOptions,
            registry="geomix.recording.quantities:QUANTITIES",
            kind="quantity",
        ),
        json_schema_input_type=str | dict[str, Any] | list[str | dict[str, Any]] | None,
    ),
]
"""Requested quantities, in the order in which they are written."""
