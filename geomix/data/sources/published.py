"""Published datasets: their rows, from a local copy in its own file format, or from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from geomix.data.files.folder import SPLITS, folder_rows, is_saved
from geomix.data.files.row import Row
from geomix.data.files.tables import files_below, rows
from geomix.data.sources.base import Found, Loader, Request, Source
from geomix.data.sources.hub import hub_rows
from geomix.data.sources.rows import POOL, Convert, by_share
from geomix.util.errors import UserError


def published(convert: Convert, *files: str) -> Loader:
    """The loader of a dataset all of whose rows are read alike.

    Args:
        convert: a row as an example.
        files: patterns of the names of its files, for a local copy.
    """
    return lambda source, request: read(source, request, convert, files)


def read(
    source: Source,
    request: Request,
    convert: Convert,
    files: Sequence[str],
    *,
    part: str = "",
    folders: Iterable[Row] | None = None,
) -> Found:
    """What a published dataset has of what a request asks for.

    Args:
        source: the dataset; of one that is streamed, no more rows are read than are needed.
        request: what is asked for.
        convert: a row as an example.
        files: patterns of the names of its files, for a local copy.
        part: which part of it is read, for messages.
        folders: the rows of a local copy that no reader of single files understands.

    Raises:
        UserError: there is nothing to read, or rows are not as they should be.
    """
    origin = f"data source '{source.name}'" + (f" ({request.path})" if request.path else "")
    found = upstream_rows(source, request, files) if folders is None else folders
    pool = POOL if source.hub and source.hub.streaming else None
    return by_share(f"{origin}, {part}" if part else origin, found, convert, request, pool)


def upstream_rows(source: Source, request: Request, files: Sequence[str]) -> Iterator[Row]:
    """All rows of a published dataset.

    Args:
        source: the dataset.
        request: its `path` is a file, a dataset of `save_to_disk`, of whose splits the one is read
            that is read of the hub, or a folder in which the files of the first pattern that
            matches any are read; without one the hub is.
        files: the patterns.

    Raises:
        UserError: there is nothing to read.
    """
    if request.path is not None and is_saved(Path(request.path)):
        split = (
            f":{source.hub.split}" if source.hub and (Path(request.path) / SPLITS).exists() else ""
        )
        yield from folder_rows(Path(request.path), split)
    elif request.path is not None:
        for file in files_below(Path(request.path), *files):
            yield from rows(file)
    elif source.hub is None:
        raise UserError(
            f"data source '{source.name}': {source.download}, then give the copy as path:"
        )
    else:
        yield from hub_rows(source.name, source.hub, source.download)
