"""The answer that an analysis prints first: lines of 80 columns, and a map of its files."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from geomix.runs.directory import RunDirectory

WIDTH = 80
"""Width of a line, in cells."""

MOST_LINES = 25
"""Most lines of an answer."""

MOST_ARMS = 5
"""Most arms that an answer names; the files have all."""

_LONGEST_NAME = 14
"""Most cells of an arm's name in a table."""

_LONGEST_STEM = 24
"""Most characters of a stem that is repeated in every line of a map of files."""


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Wrap a sentence to lines of at most `WIDTH` cells, all but the first one indented."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of cells: the first column on the left, the others on the right."""
    rows = [(shortened(row[0], _LONGEST_NAME), *row[1:]) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            set_cell_size(cell, width) if k == 0 else " " * (width - cell_len(cell)) + cell
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def names_of(arms: Iterable[str]) -> str:
    """Return `plain, mixed and control`; long lists are shortened."""
    found = list(arms)
    if len(found) > MOST_ARMS:
        found = [*found[: MOST_ARMS - 1], f"{len(found) - MOST_ARMS + 1} more"]
    return " and ".join(filter(None, [", ".join(found[:-1]), found[-1]]))


def seeds_of(seeds: Iterable[int]) -> str:
    """Return `seed 0`, or `3 seeds (0, 1, 2)`; long lists are shortened."""
    found = sorted(set(seeds))
    if len(found) == 1:
        return f"seed {found[0]}"
    listed = ", ".join(map(str, found[:MOST_ARMS])) + ", …" * (len(found) > MOST_ARMS)
    return f"{len(found)} seeds ({listed})"


def shortened(text: str, most: int) -> str:
    """Shorten a text to this many cells, with an ellipsis if it was cut."""
    return text if cell_len(text) <= most else set_cell_size(text, most - 1).rstrip() + "…"


def file_map(
    run: RunDirectory, files: Sequence[Path], stem: str, meanings: Mapping[str, str]
) -> list[str]:
    """Return a map of the files: a line for the files of one name, in all formats.

    Args:
        run: whose folder holds them.
        files: the written ones.
        stem: common start of their names; a long one is written once, as NAME.
        meanings: contents of files, by folder and the rest of the name: `figures/_plane`; the
            longest matching start counts, and a whole `analysis/.txt` stands for itself.
    """
    short = stem if len(stem) <= _LONGEST_STEM else "NAME"
    rows: dict[str, str] = {}
    formats: dict[str, set[str]] = {}
    for file in files:
        folder, rest = file.parent.name, file.stem.removeprefix(stem)
        key = f"{folder}/{rest}{file.suffix}"
        if key not in meanings:
            known = [one for one in meanings if f"{folder}/{rest}".startswith(one)]
            key = max(known, key=len, default=f"{folder}/{rest}")
            formats.setdefault(key, set()).add(file.suffix if f"{folder}/{rest}" == key else "*")
        rows[key] = meanings.get(key, "")
    named = {key: _name(key, short, formats.get(key, set())) for key in rows}
    width = max(map(cell_len, named.values()), default=0)
    called = f", where NAME is {stem}" if short != stem else ""
    head = wrapped(f"Files in {run.path}/{called} (figures: .pdf, .png, .csv, .txt):")
    return [*head, *(f"  {named[key]:{width}}  {meaning}" for key, meaning in rows.items())]


def _name(key: str, stem: str, formats: Collection[str]) -> str:
    """Return `figures/grad_angle_plane.*`: the stem inserted, and the format if there is one."""
    folder, rest = key.split("/", 1)
    name = f"{folder}/{stem}{rest}"
    if not formats or "*" in formats:
        return name + "*" * bool(formats)
    return name + (next(iter(formats)) if len(formats) == 1 else ".*")


def fitted(lines: Sequence[str], files: Sequence[str]) -> list[str]:
    """Fit an answer and its map of files into `MOST_LINES`: drop empty lines first, then files."""
    found = [*lines, "", *files]
    if len(found) > MOST_LINES:
        found = [line for line in found if line]
    if len(found) > MOST_LINES:
        found = [*found[: MOST_LINES - 1], "  … and the other files there"]
    return found
