"""YAML with the line of every value, and assignment of values by dotted keys."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from geomix.util.errors import UserError

Key = tuple[str | int, ...]
"""Path of a value in the tree: `("stages", 0, "mix", "ratio")`."""

MOST_VALUES = 100_000
"""Most keys and list items that a configuration may have."""

BAD_SCALARS = (ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""Exceptions that PyYAML raises for values that it cannot build."""

SHOWN = 60
"""Most characters of a given value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Location of a value in its file, for messages."""

    file: str
    line: int | None
    key: Key

    def __str__(self) -> str:
        location = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{location} {dotted(self.key)}".rstrip()


Mistakes = dict[str, float]
"""Lines for the user, each once, with the line number that it concerns; inf if there is none."""


@dataclass(slots=True)
class Document:
    """Plain values with the origin of each; `origins` holds every mapping key and list item.

    `mistakes` holds what was already wrong when it was read.
    """

    values: Any
    origins: dict[Key, Origin] = field(default_factory=dict)
    mistakes: Mistakes = field(default_factory=dict)


def line_of(origin: Origin) -> float:
    """Return the line number by which a mistake is sorted; inf if it has none."""
    return math.inf if origin.line is None else origin.line


def origin_at(origins: Mapping[Key, Origin], key: Key) -> Origin:
    """Return the origin of `key`, or of the nearest part around it."""
    for length in range(len(key), 0, -1):
        origin = origins.get(key[:length])
        if origin:
            return Origin(origin.file, origin.line, (*origin.key, *key[length:]))
    for known, origin in origins.items():
        if known[: len(key)] == key:
            return Origin(origin.file, origin.line, key)
    files = [origin.file for origin in origins.values()]
    return Origin(files[0] if files else "", None, key)


def dotted(key: Key) -> str:
    """Format a key: `("stages", 0, "mix")` → `stages[0].mix`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


RUN_WANTS = "a configuration is a mapping that holds at least `stages:`"
"""Message for a file without a mapping where a run's configuration was expected."""


def parse(text: str, file: str, wants: str = RUN_WANTS) -> Document:
    """Parse a YAML mapping into values and origins; duplicate keys are among its mistakes.

    Args:
        text: the YAML.
        file: its name, for messages.
        wants: the message for a text without a mapping.

    Raises:
        UserError: it is not YAML, not a mapping, or too large.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{file}:{mark.line + 1}" if mark else file
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if "'\\t'" in problem:
            problem += "; indent with spaces, not tabs"
        if "constructor for the tag" in problem:
            problem += "; only plain values may stand here"
        if problem == "but found another document":
            problem = "a second document (`---`); a run has one"
        raise UserError(f"{location}: not YAML: {problem}") from None
    except BAD_SCALARS as error:  # a date like 2026-99-99, `!!int` of nothing, endless nesting
        raise UserError(f"{file}: not YAML: {shortened(str(error))}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: {wants}")
    document = Document(values)
    try:
        _locate(node, file, (), document)
    except RecursionError:
        raise UserError(f"{file}: an alias (*name) that holds itself") from None
    return document


def _locate(node: Any, file: str, key: Key, document: Document) -> None:
    """Record the line of every key below `node`; for a duplicate the last one's, which wins."""
    origins = document.origins
    if len(origins) > MOST_VALUES:  # nested aliases expand a few lines into billions
        raise UserError(f"{file}: more than {MOST_VALUES} values, its aliases (*name) expanded")
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, name.value)
            origin = Origin(file, name.start_mark.line + 1, inner)
            if inner in origins:
                message = f"{origin}: given twice (first in line {origins[inner].line})"
                document.mistakes[message] = line_of(origin)
                forget(origins, inner)
            origins[inner] = origin
            _locate(value, file, inner, document)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*key, index)
            origins[inner] = Origin(file, value.start_mark.line + 1, inner)
            _locate(value, file, inner, document)


def apply_text(
    document: Document,
    override: str,
    check: Callable[[Document, Key, str], object] = lambda *_: None,
) -> None:
    """Apply one `--set key.path=value`.

    Args:
        document: the document to change.
        override: the text.
        check: called with the document before the change, the key and the text; raises if the key
            must not be set.
    """
    value, key = value_of(override), key_of(override.partition("=")[0])
    check(document, key, override)
    assign(document, key, value, Origin(f"--set {shortened(override)}", None, ()))


def value_of(override: str) -> Any:
    """Return the value of a `--set key.path=value`.

    Raises:
        UserError: it has none, or no key, or the value is not YAML.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UserError(
            f"--set {shortened(override)}: give key=value, such as stages.0.mix.ratio=2"
        )
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, *BAD_SCALARS):
        raise UserError(f"--set {shortened(override)}: the value is not YAML") from None


def key_of(name: str) -> Key:
    """Parse a dotted key: `stages.0.mix` or `stages[0].mix` → `("stages", 0, "mix")`."""
    parts = name.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts)


def assign(document: Document, key: Key, value: Any, origin: Origin) -> None:
    """Assign a value to a key, creating the mappings on the way."""
    node: Any = document.values
    for depth, part in enumerate(key):
        last = depth == len(key) - 1
        above = key[depth - 1] if depth else None
        if isinstance(node, list):
            if not isinstance(part, int) or part >= len(node):
                raise UserError(
                    f"{origin}: {dotted(key[:depth])} has {len(node)} items; "
                    f"'{part}' is not the number of one (the first is 0)"
                )
            if not last and above == "mix" and isinstance(node[part], str):
                node[part] = {"source": node[part]}
        elif not isinstance(node, dict):
            raise UserError(f"{origin}: {dotted(key[:depth])} is a value, not a mapping")
        elif above == "mix" and isinstance(part, int):
            raise UserError(
                f"{origin}: {dotted(key[:depth])} is one mix, no list; leave out '{part}'"
            )
        elif not last and node.get(part) is None:
            node[part] = {}
            made = key[: depth + 1]
            document.origins[made] = Origin(origin.file, origin.line, made)
        elif not last and part in ("data", "mix") and isinstance(node[part], str):
            node[part] = {"source": node[part]}
        elif not last and part == "replay" and isinstance(node[part], int | float):
            node[part] = {"ratio": node[part]}
        if last:
            node[part] = copy.deepcopy(value)
        else:
            node = node[part]
    forget(document.origins, key)
    document.origins[key] = origin


def override(
    document: Document,
    name: str,
    value: Any,
    location: Origin,
    written: Key,
    known: dict[Key, Origin],
) -> None:
    """Assign a value written elsewhere to a dotted key; messages name where it was written.

    Args:
        document: the document to change.
        name: the dotted key, as in `--set`.
        value: the value to assign.
        location: origin of the value.
        written: its key there.
        known: the origins of the document that it was written in.

    Raises:
        UserError: there can be no such key.
    """
    key = key_of(name)
    assign(document, key, value, location)
    for inner, origin in list(known.items()):
        if inner[: len(written)] == written:
            document.origins[(*key, *inner[len(written) :])] = origin


def forget(origins: dict[Key, Origin], key: Key) -> None:
    """Remove the origins at `key` and below, since another value replaces it."""
    for stale in [known for known in origins if known[: len(key)] == key]:
        del origins[stale]


def repeated(value: Any) -> str:
    """Return a value as it was given, for a message."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python rejects numbers of more than 4,300 digits
        return "a very long number"


def shortened(text: str) -> str:
    """Shorten a given value for a message to one line of at most `SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 2] + " …"
