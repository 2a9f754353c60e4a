"""Keys that hold registered entries with options of their own: methods, quantities."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from geomix.config.data import Strict


def entries(value: Any, base: type[Strict], registry: str, kind: str) -> Any:
    """Validate a name, a mapping, or a list of either, to a tuple of options.

    Args:
        value: the value in a configuration.
        base: base class of all options, with a field `name`.
        registry: `module:attribute`; it is in a higher layer, and its entries state their
            `Options`.
        kind: word for an entry, for messages.
    """
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    found = [_options(item, base, registry, kind) for item in items]
    names = [options.name for options in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return tuple(found)


def _options(item: Any, base: type[Strict], registry: str, kind: str) -> Any:
    if isinstance(item, base):
        return item
    given = {"name": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ValueError(f"give a {kind}'s name, or a mapping with `name`, or a list of these")
    module, _, attribute = registry.partition(":")
    known = getattr(import_module(module), attribute)
    if given["name"] not in known:
        raise ValueError(known.unknown(given["name"]))
    return known[given["name"]].Options.model_validate(given)
