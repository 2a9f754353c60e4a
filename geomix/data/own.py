"""The user's own examples: a file, or any dataset of the hub, with a column mapping."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geomix.config_data import Columns, is_file
from geomix.data.example import Example
from geomix.data.hub import hub_rows
from geomix.data.rows import Convert, RowError, answered, field_in, in_order, text_in, texts_in
from geomix.data.source import Found, Hub, Request
from geomix.data.table import Row, rows
from geomix.errors import UserError


def found_in(source: str, request: Request) -> Found:
    """Rows of a file or of a dataset of the hub, in order: `count`, or all if they are fewer.

    Raises:
        UserError: they cannot be read, or are not as they should be.
    """
    if request.path or request.vocabulary != "generated":
        raise UserError(f"{source}: 'path' and 'vocabulary' are for named sources only")
    columns = request.columns or Columns()
    if is_file(source) and request.subset:
        raise UserError(f"{source}: a file has no subsets")
    convert = _convert(source, columns, request.template)
    found = rows(Path(source)) if is_file(source) else _hub_rows(source, request.subset or "")
    return in_order(source, found, convert, request)


def _hub_rows(source: str, subset: str) -> Iterator[Row]:
    """Rows of a dataset of the hub; its `subset` is `configuration:split`."""
    config, _, part = subset.partition(":")
    return hub_rows(source, Hub(source, config or None, part or "train", streaming=True))


def _convert(origin: str, columns: Columns, template: str | None) -> Convert:
    names = None if template is None else _names(origin, template)

    def convert(row: Mapping[str, Any]) -> Example:
        if template is None or names is None:
            prompt = _column(row, columns.prompt, "prompt")
        else:
            prompt = template.format_map({name: _filled(row, name) for name in names})
            if not prompt.strip():
                raise RowError("the template gives an empty prompt")
        target = _column(row, columns.target, "target")
        if columns.aliases is None:
            return Example(prompt, target)
        return answered(prompt, target, texts_in(row, columns.aliases))

    return convert


def _names(origin: str, template: str) -> list[str]:
    """The columns that a template names; nothing but plain names may stand in its braces."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{origin}: template: {error}; write {{{{ for a brace") from None
    names = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name or form or conversion or any(c in name for c in ".[]"):
            raise UserError(f"{origin}: template: '{{{name}}}' is not a column's plain name")
        names.append(name)
    if not names:
        raise UserError(f"{origin}: template: it names no column, so all prompts would be the same")
    return names


def _column(row: Mapping[str, Any], name: str, role: str) -> str:
    try:
        return text_in(row, name)
    except RowError as error:
        if name in row:
            raise
        raise RowError(f"{error}; name yours with columns.{role}, or --{role}") from None


def _filled(row: Mapping[str, Any], name: str) -> str:
    value = field_in(row, name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text_in(row, name)
