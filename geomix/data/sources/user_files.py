"""The user's own examples: a file, a folder, or a dataset of the hub, with a column mapping."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomix.config.data import Columns
from geomix.config.source_names import is_path
from geomix.data.example import Example
from geomix.data.files.folder import folder_rows
from geomix.data.files.row import Row
from geomix.data.files.tables import rows
from geomix.data.sources.base import Found, Hub, Request
from geomix.data.sources.hub import hub_rows
from geomix.data.sources.rows import (
    Convert,
    NoColumn,
    RowError,
    answered,
    field_in,
    in_order,
    number_in,
    text_in,
    texts_in,
)
from geomix.util.errors import OfKey, UserError
from geomix.util.nearby import close_to, no_such_file

LONGEST_TEXT = 1_000_000
"""Most characters of a prompt or target: a million are more tokens than any model takes."""

SLOT = "{}"
"""Placeholder for the subject in the prompts of sets of edits (CounterFact)."""


def found_in(source: str, request: Request) -> Found:
    """Return rows of a file, folder or hub dataset, in order: `count`, or all if they are fewer.

    Raises:
        UserError: they cannot be read, or are malformed.
    """
    if request.path or request.vocabulary != "generated":
        raise UserError(f"{source}: 'path' and 'vocabulary' are for named sources only")
    columns = request.columns or Columns()
    template = None if request.template is None else Template.of(source, request.template)
    prompt = [columns.prompt] if template is None else template.names
    others = (columns.target, columns.aliases, columns.subject)
    wanted = [*prompt, *(name for name in others if name is not None)]
    found = _rows(source, request.subset, wanted)
    return in_order(source, found, _convert(columns, template), request)


def _rows(source: str, subset: str | None, wanted: Sequence[str]) -> Iterator[Row]:
    """Return the rows of an existing path, else of the hub."""
    if not is_path(source):
        near = close_to(Path(source)) if Path(source).parent.is_dir() else None
        if near is not None:
            raise OfKey(
                ("source",),
                f"{source}: no such file; did you mean '{near}'? (for the hub's dataset of this "
                f"name start geomix where no folder '{Path(source).parent}' is)",
            )
        return _hub_rows(source, subset or "")
    path = Path(source).expanduser()
    if path.is_dir():
        return folder_rows(path, subset, wanted)
    if subset:
        raise UserError(f"{source}: a file has no subsets")
    if "\0" not in source and not os.path.lexists(path):
        raise OfKey(("source",), no_such_file(path), " (a data source)")
    return rows(path, wanted)


def _hub_rows(source: str, subset: str) -> Iterator[Row]:
    """Return the rows of a hub dataset; its `subset` is `configuration:split`."""
    config, _, part = subset.partition(":")
    return hub_rows(source, Hub(source, config or None, part or "train", streaming=True))


def _convert(columns: Columns, template: Template | None) -> Convert:
    """Return the converter of a row by its columns."""

    def convert(row: Mapping[str, Any]) -> Example:
        subject = "" if columns.subject is None else _column(row, columns.subject, "subject")
        prompt = _column(row, columns.prompt, "prompt") if template is None else template.fill(row)
        if subject and template is None:
            prompt = prompt.replace(SLOT, subject)
        target = _column(row, columns.target, "target")
        _check_length(prompt, target)
        if columns.aliases is None and not subject:
            return Example(prompt, target)
        return answered(prompt, target, _aliases(row, columns.aliases), subject)

    return convert


def _check_length(prompt: str, target: str) -> None:
    """Reject texts that no model takes and no tokenizer splits in reasonable time."""
    for name, text in (("prompt", prompt), ("target", target)):
        if len(text) > LONGEST_TEXT:
            what = f"the {name} has {len(text):,} characters, more than {LONGEST_TEXT:,}"
            raise RowError(f"{what}; shorten it, or leave the row out")


def _aliases(row: Mapping[str, Any], name: str | None) -> tuple[str, ...]:
    """Return further right answers; a null or an empty cell has none."""
    if name is None:
        return ()
    try:
        value = field_in(row, name)
    except NoColumn as error:
        raise error.named_by(("columns", "aliases")) from None
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    return texts_in(row, name)


@dataclass(frozen=True, slots=True)
class Template:
    """Prompt template made of columns.

    Attributes:
        parts: texts, each followed by the column to insert; None at the end.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, origin: str, template: str) -> Template:
        """Parse a template: texts with columns, or paths of columns, in braces.

        Raises:
            UserError: its braces hold something else, or it names no column.
        """
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(f"{origin}: template: {error}; write {{{{ for a brace") from None
        for _, name, form, conversion in parts:
            odd = not name or form or conversion or "[" in name or "]" in name or "__" in name
            if name is not None and odd:
                raise UserError(f"{origin}: template: '{{{name}}}' is not a column's plain name")
        if not any(name for _, name, _, _ in parts):
            raise UserError(
                f"{origin}: template: it names no column, so all prompts would be the same"
            )
        return cls(tuple((text, name) for text, name, _, _ in parts))

    @property
    def names(self) -> list[str]:
        """Columns that it names."""
        return [name for _, name in self.parts if name is not None]

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the prompt of a row.

        Raises:
            RowError: a column is missing, or its value is neither a text nor a number.
        """
        prompt = "".join(
            text + ("" if name is None else _filled(row, name)) for text, name in self.parts
        )
        if not prompt.strip():
            raise RowError("the template gives an empty prompt")
        return prompt


def _column(row: Mapping[str, Any], name: str, role: str) -> str:
    try:
        return text_in(row, name)
    except NoColumn as error:
        near = next((other for other in row if other != name and other.strip() == name), None)
        space = "" if near is None else f"remove the space beside {near!r}"
        advice = f"; name yours with columns.{role}"
        raise error.named_by(("columns", role), advice, space) from None


def _filled(row: Mapping[str, Any], name: str) -> str:
    try:
        number = number_in(field_in(row, name), name)
    except NoColumn as error:
        raise error.named_by(("template",)) from None
    return text_in(row, name) if number is None else number
