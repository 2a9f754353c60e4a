"""Reading of a run's JSON files; a file that geomix did not write so gives one clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geomix.util.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files.

    Raises:
        UserError: it is missing, cannot be read or is not a JSON object.
    """
    return parse_json(str(path), _bytes_of(path))


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read one of a run's JSON files that holds an object or a list of objects.

    Raises:
        UserError: it is missing, cannot be read or holds something else.
    """
    value = _parse(str(path), _bytes_of(path))
    objects = value if isinstance(value, list) else [value]
    expect(path, "objects", all_of(objects, dict))
    return objects


def check_ordinary(path: Path) -> None:
    """Reject a path that exists and is not a regular file: reading a foreign pipe would never end.

    Raises:
        UserError: it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: cannot be read (not an ordinary file)")


def _bytes_of(path: Path) -> bytes:
    check_ordinary(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; is {path.parent} a run of geomix?") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def parse_json(where: str, data: bytes) -> dict[str, Any]:
    """Parse a JSON object; an error names `where`."""
    value = _parse(where, data)
    if not isinstance(value, dict):
        raise UserError(f"{where}: cannot be read (not a JSON object)")
    return value


def _parse(where: str, data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read ({error})") from None


def all_of(values: Any, kind: type) -> bool:
    """Return whether a value is a list whose items all have one kind."""
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def expect(path: Path, what: str, held: bool) -> None:
    """Reject a file that lacks what every command relies on."""
    if not held:
        raise UserError(f"{path}: cannot be read (it lacks {what})")


def expect_names(path: Path, key: str, names: Iterable[Any]) -> None:
    """Reject names that would lead out of the folder that they name.

    Args:
        path: the file that holds them.
        key: where in it.
        names: each becomes one part of a path.

    Raises:
        UserError: one is not a string, or empty, `.` or `..`, or holds a path separator.
    """
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or {*name} & {*"/\\\0"}:
            raise UserError(f"{path}: {key}: {name!r} is no name of a folder within the run")


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Turn the error raised by a value that geomix did not write into one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: not as geomix writes it ({error!r})") from None


def without_nan(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value
