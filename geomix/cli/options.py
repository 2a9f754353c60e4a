"""Command-line flags from the fields of an options class (`geomix.analysis.options`)."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from geomix.util.errors import UserError
from geomix.util.registry import Registry


class EntryOf(click.ParamType[str]):
    """The name of a registry's entry, of geomix or of another package."""

    name = "name"

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    @property
    def choices(self) -> list[str]:
        """Every name; nothing is imported."""
        return [*self.registry]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """Return the choices."""
        return f"[{'|'.join(self.choices)}]"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> str:
        """Check that there is one of that name."""
        if value not in self.registry:
            raise UserError(self.registry.unknown(str(value)))
        return str(value)


def parameters_of(options: type[Any]) -> list[click.Option]:
    """Return a flag for each field: a choice, a switch, a number or a text, by its type."""
    types = get_type_hints(options)
    return [_flag(field, types[field.name]) for field in dataclasses.fields(options)]


def _flag(field: dataclasses.Field[Any], kind: Any) -> click.Option:
    metadata = field.metadata
    name = metadata.get("flag") or "--" + field.name.replace("_", "-")
    settings: dict[str, Any] = {"default": field.default, "help": metadata.get("text")}
    settings["metavar"] = metadata.get("metavar") or None
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    shown = metadata.get("shown", True) and field.default not in (None, ())
    if kind is bool:
        return click.Option([name, field.name], is_flag=True, **settings)
    if get_origin(kind) is tuple:
        settings |= {"multiple": True, "type": get_args(kind)[0]}
    elif get_origin(kind) is Literal:
        settings["type"] = click.Choice(get_args(kind))
    elif kind is int and metadata.get("least") is not None:
        settings["type"] = click.IntRange(metadata["least"])
    elif kind is float and metadata.get("above") is not None:
        settings["type"] = click.FloatRange(metadata["above"], min_open=True)
    else:
        settings["type"] = kind
    return click.Option([name, field.name], show_default=shown, **settings)
