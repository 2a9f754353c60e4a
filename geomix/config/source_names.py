"""Kinds of a source's name: a file by its suffix, a path, a hub id, or a mistake for one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path

from geomix.util.nearby import close_to

FILE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Suffixes of files with a user's own examples, in either case; text formats may add `.gz`."""


def file_suffix(name: str) -> str:
    """Return the suffix of a file's name that states its format, in lower case; else empty.

    `FACTS.CSV` and `facts.csv.gz` are both `.csv`.
    """
    name = name.lower().removesuffix(".gz")
    return next((suffix for suffix in FILE_SUFFIXES if name.endswith(suffix)), "")


def without_suffix(name: str) -> str:
    """Return a file's name without the suffixes that state its format."""
    suffix = file_suffix(name)
    if not suffix:
        return name
    bare = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return bare[: -len(suffix)]


def is_path(source: str) -> bool:
    """Return whether a source is the path of a file or folder: by its form, or because it exists.

    Anything that exists here is never looked up on the hub, whatever its name.
    """
    if file_suffix(source) or source.startswith(("/", "./", "../", "~")):
        return True
    try:
        return os.path.lexists(source)
    except ValueError:  # a NUL character
        return False


def is_hub_id(source: str) -> bool:
    """Return whether a source looks like a hub id, `owner/name`, and does not exist here."""
    part = r"[A-Za-z0-9_][\w.-]{0,95}"
    return not is_path(source) and bool(re.fullmatch(f"{part}/{part}", source))


def is_own(source: str) -> bool:
    """Return whether a source is the user's own: a file, a folder or a hub id."""
    return "/" in source or bool(file_suffix(source)) or is_path(source)


def unknown_source(name: str, known: Collection[str]) -> str:
    """Return the message for an unknown source, with a suggestion.

    Args:
        name: as it was given: not registered, no existing path, no hub id.
        known: the registered names.
    """
    near = close_to(Path(name)) if "\0" not in name else None
    if "/" in name or "." in name:
        return "no such file" + f"; did you mean '{near}'?" * bool(near)
    if close := difflib.get_close_matches(name.lower(), known, n=1):
        return f"unknown source; did you mean '{close[0]}'?"
    if near and file_suffix(near):
        return f"unknown source; did you mean '{near}'?"
    files = ", ".join(FILE_SUFFIXES)
    return f"unknown source; known: {', '.join(known)}, a file ({files}), a folder or owner/name"
