"""Published datasets: their rows, from a local copy in the upstream format, or from the hub."""

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
    """Return the loader of a dataset whose rows are all converted alike.

    Args:
        convert: converts a row to an example.
        files: name patterns of its files, for a local copy.
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
    """Read a published dataset's examples for a request.

    Args:
        source: the dataset; of a streamed one, no more rows are read than needed.
        request: the request.
        convert: converts a row to an example.
        files: name patterns of its files, for a local copy.
        part: the part that is read, for messages.
        folders: the rows of a local copy that no reader of single files understands.

    Raises:
        UserError: there is nothing to read, or rows are malformed.
    """
    origin = f"data source '{source.name}'" + (f" ({request.path})" if request.path else "")
    found = upstream_rows(source, request, files) if folders is None else folders
    pool = POOL if source.hub and source.hub.streaming else None
    return by_share(f"{origin}, {part}" if part else origin, found, convert, request, pool)


def upstream_rows(source: Source, request: Request, files: Sequence[str]) -> Iterator[Row]:
    """Yield all rows of a published dataset.

    Args:
        source: the dataset.
        request: without a `path` the hub is read. A path is a file; a dataset of `save_to_disk`, of
            which the same split as from the hub is read; or a folder, of which the files of the
            first matching pattern are read.
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
