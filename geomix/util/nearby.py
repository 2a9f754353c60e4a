"""What a path that does not exist was probably meant to be."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

MOST_NAMES = 10_000
"""Of a folder, so many names are compared at most."""

ALIKE = 0.6
"""Share of two names that has to be alike (difflib's ratio)."""


def close_to(path: Path, *, folders: bool = False) -> str | None:
    """The name of what lies beside a missing path and is most like it; None where nothing is.

    A name that differs in its endings alone, or in capital letters, counts as most like it.

    Args:
        path: that is not there.
        folders: whether a folder was meant, so that no file can be.
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
    """`no such folder runs/frist; did you mean 'runs/first'?`, or that it is a file."""
    if os.path.lexists(path) and not path.is_dir():
        return f"{path} is a file, no folder"
    near = close_to(path, folders=True)
    return f"no such folder {path}" + f"; did you mean '{near}'?" * bool(near)


def no_such_file(path: Path) -> str:
    """`facs.csv: no such file; did you mean 'facts.csv'?`, or which folder is not there."""
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
