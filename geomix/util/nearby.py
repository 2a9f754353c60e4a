"""The existing path that a missing one was probably meant to be."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

MOST_NAMES = 10_000
"""Most names of a folder that are compared."""

ALIKE = 0.6
"""Least similarity of two names (difflib's ratio)."""


def close_to(path: Path, *, folders: bool = False) -> str | None:
    """Return the name beside a missing path that is most like it; None if there is none.

    A name that differs only in its suffixes or in capitals counts as most similar.

    Args:
        path: that does not exist.
        folders: whether a folder was meant, so that files are left out.
    """
    names = _names_in(path.parent, folders)
    wanted = path.name.lower()
    stem = wanted.split(".", maxsplit=1)[0]
    same = [name for name in names if name.lower() == wanted]
    same += [name for name in names if stem and name.lower().split(".", maxsplit=1)[0] == stem]
    by_lower = {name.lower(): name for name in names}
    alike = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=ALIKE)
    found = next(iter([*same, *(by_lower[name] for name in alike)]), None)
    return None if found is None else str(path.parent / found)


def no_such_folder(path: Path) -> str:
    """Return `no such folder runs/frist; did you mean 'runs/first'?`, or that it is a file."""
    if os.path.lexists(path) and not path.is_dir():
        return f"{path} is a file, no folder"
    near = close_to(path, folders=True)
    return f"no such folder {path}" + f"; did you mean '{near}'?" * bool(near)


def no_such_file(path: Path) -> str:
    """Return `facs.csv: no such file; did you mean 'facts.csv'?`, or which folder is missing."""
    found = close_to(path)
    if found is not None:
        return f"{path}: no such file; did you mean '{found}'?"
    missing = next((p for p in reversed(path.parents) if not os.path.lexists(p)), None)
    if missing is None:
        return f"{path}: no such file"
    near = close_to(missing)
    guess = f"; did you mean '{near}'?" if near else ""
    return f"{path}: no such file, and no folder '{missing}'{guess}"


def _names_in(folder: Path, folders: bool = False) -> list[str]:
    try:
        with os.scandir(folder) as found:
            entries = islice(found, MOST_NAMES)
            return sorted(one.name for one in entries if one.is_dir() or not folders)
    except (OSError, ValueError):
        return []
