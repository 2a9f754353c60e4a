"""Files and folders that are complete as soon as they exist under their final name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geomix.util.links import opened_to_append

PARTIAL = ".partial"
"""Suffix of files still being written; readers ignore them, and a rerun may delete them."""


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in an `OSError` that lacks it: a write to a full disk knows no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path` to write to; on success sync it and rename it to `path`.

    A link under either name is replaced; its target stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    try:
        with _named(path):
            yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; on success sync its files and rename it to `path`.

    Raises:
        FileExistsError: `path` exists; a finished folder is never replaced.
    """
    if os.path.lexists(path):  # a dangling link, too
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    partial = path.with_name(path.name + PARTIAL)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        with _named(path):
            yield partial
        for file in [*sorted(partial.rglob("*")), partial]:
            sync(file)
        partial.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file, a folder with its contents, or a link but not its target."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with written_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the given order; reject NaN (not JSON)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON, UTF-8; reject NaN (not JSON)."""
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def append_json_line(path: Path, value: Any) -> None:
    """Append one line of JSON in a single write, which neither a kill nor a full disk truncates.

    Only one process may append at a time.

    Raises:
        UserError: the file is a link, or has a second name (hard link).
    """
    data = json_line(value)
    with opened_to_append(path) as descriptor:
        size = os.fstat(descriptor).st_size
        with _named(path):
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
