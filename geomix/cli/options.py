"""Command-line flags from the fields of an options class (`geomix.analysis.options`)."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click


def parameters_of(options: type[Any]) -> list[click.Option]:
    """A flag for each field: a choice, a switch, a number or a text, as its type has it."""
    types = get_type_hints(options)
    return [_flag(field, types[field.name]) for field in dataclasses.fields(options)]


def _flag(field: dataclasses.Field[Any], kind: Any) -> click.Option:
    said = field.metadata
    name = said.get("flag") or "--" + field.name.replace("_", "-")
    settings: dict[str, Any] = {"default": field.default, "help": said.get("text")}
    settings["metavar"] = said.get("metavar") or None
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    shown = said.get("shown", True) and field.default not in (None, ())
    if kind is bool:
        return click.Option([name, field.name], is_flag=True, **settings)
    if get_origin(kind) is tuple:
        settings |= {"multiple": True, "type": get_args(kind)[0]}
    elif get_origin(kind) is Literal:
        settings["type"] = click.Choice(get_args(kind))
    elif kind is int and said.get("least") is not None:
        settings["type"] = click.IntRange(said["least"])
    elif kind is float and said.get("above") is not None:
        settings["type"] = click.FloatRange(said["above"], min_open=True)
    else:
        settings["type"] = kind
    return click.Option([name, field.name], show_default=shown, **settings)
