"""Methods of a stage: the key `method`; each method declares its own options."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeFloat, SerializeAsAny

from geomix.config.data import Strict


class MethodOptions(Strict):
    """Options common to all methods; a method adds its own."""

    name: Annotated[str, Field(min_length=1)]
    """Name of a registered method."""
    strength: NonNegativeFloat = 1.0
    """Strength, without a unit; 0 is plain training, bit for bit."""


def _listed(value: Any) -> Any:
    """Convert a name, a mapping, or a list of either to a list of validated options."""
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    found = [_options(item) for item in items]
    names = [options.name for options in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return tuple(found)


def _options(item: Any) -> MethodOptions:
    if isinstance(item, MethodOptions):
        return item
    given = {"name": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ValueError("give a method's name, or a mapping with `name`, or a list of these")
    # The registry is in a higher layer; each method declares its own keys.
    registry = import_module("geomix.training.methods").METHODS
    if given["name"] not in registry:
        raise ValueError(registry.unknown(given["name"]))
    options: MethodOptions = registry[given["name"]].Options.model_validate(given)
    return options


Methods = Annotated[
    tuple[SerializeAsAny[MethodOptions], ...],
    BeforeValidator(
        _listed, json_schema_input_type=str | dict[str, Any] | list[str | dict[str, Any]] | None
    ),
]
"""Methods in the order in which they act."""
