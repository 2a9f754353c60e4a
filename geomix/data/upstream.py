"""Rows of a published dataset: from a local copy in its own file format, or from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from geomix.data.hub import hub_rows
from geomix.data.source import Hub, Request
from geomix.data.table import Row, files_below, rows
from geomix.errors import UserError


def upstream_rows(
    name: str, request: Request, hub: Hub | None, download: str, patterns: tuple[str, ...]
) -> Iterator[Row]:
    """All rows of a source.

    Args:
        name: of the source, for messages.
        request: its `path` is a file, or a folder in which the files of the first pattern that
            matches any are read; without one the hub is.
        hub: where it is on the hub.
        download: what to download and from where, for the message.
        patterns: of the names of its files.

    Raises:
        UserError: there is nothing to read.
    """
    if request.path is not None:
        for file in files_below(Path(request.path), *patterns):
            yield from rows(file)
    elif hub is None:
        raise UserError(f"data source '{name}': {download}, then give the copy as path:")
    else:
        yield from hub_rows(name, hub, download)


def origin_of(name: str, request: Request) -> str:
    """The source and where it is read, for messages."""
    return f"data source '{name}'" + (f" ({request.path})" if request.path else "")
