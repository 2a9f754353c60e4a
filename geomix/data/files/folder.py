"""Folders of data: `save_to_disk` datasets, shards, snapshots of the hub. No code is run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from geomix.config.source_names import file_suffix, without_suffix
from geomix.data.files.row import Row
from geomix.data.files.tables import rows
from geomix.util.errors import UserError

MOST_FILES = 10_000
"""Most files below a folder that are examined."""

STATE = "state.json"
"""File beside the Arrow files of a saved dataset that lists them."""

SPLITS = "dataset_dict.json"
"""File above the folders of a saved dataset's splits that lists them."""

_MOST_STATE = 2**24  # bytes

_NO_DATA = {STATE, SPLITS, "dataset_info.json", "dataset_infos.json", "metadata.json"}

_SHARD = re.compile(r"[-_.]?(\d{5}-of-\d{5}|part[-_]?\d+|\d{3,})(?=$|[-_.]).*$", re.IGNORECASE)
"""Pattern of the number in a shard's name, with what follows it."""

_ORDER = (".parquet", ".arrow", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
"""Formats in order of preference, for folders with several."""


def is_saved(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`: one dataset or several splits."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def folder_rows(
    folder: Path, subset: str | None = None, wanted: Collection[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a folder of data, file after file.

    Args:
        folder: a dataset of `save_to_disk`, or a folder with data files in it or below.
        subset: the part to read, `configuration:split` as for a hub id; either may be left out if
            there is only one.
        wanted: the columns to read; None means all.

    Raises:
        UserError: it holds no data, or several parts of which none is chosen, or cannot be read.
    """
    parts = _saved(folder) if is_saved(folder) else _grouped(folder)
    for file in _chosen(folder, parts, subset):
        yield from rows(file, wanted)


Parts = dict[tuple[str, str], list[Path]]
"""Files of each configuration and split."""


def _chosen(folder: Path, parts: Parts, subset: str | None) -> list[Path]:
    """Return the files of the requested part."""
    config, _, split = (subset or "").partition(":")
    found = [
        key for key in parts if (not config or key[0] == config) and (not split or key[1] == split)
    ]
    if len(found) == 1:
        return parts[found[0]]
    known = ", ".join(f"'{name}:{part}'" for name, part in list(parts)[:20])
    known += f" and {len(parts) - 20} more" * (len(parts) > 20)  # noqa: PLR2004
    if not found:
        raise UserError(f"{folder}: it has no part '{subset}'; it has subset: {known}")
    raise UserError(f"{folder}: a folder of {len(parts)} parts; choose one with subset: {known}")


def _saved(folder: Path) -> Parts:
    """Return the parts of a dataset that `save_to_disk` wrote."""
    if not (folder / SPLITS).is_file():
        return {("", _split_of(folder)): _listed(folder)}
    names = _read(folder / SPLITS).get("splits")
    if not isinstance(names, list) or not all(_is_plain(name) for name in names) or not names:
        raise UserError(f"{folder / SPLITS}: does not list the splits; save the dataset again")
    missing = [name for name in names if not (folder / name / STATE).is_file()]
    if missing:
        raise UserError(f"{folder}: its split '{missing[0]}' is not there; copy the whole folder")
    return {("", name): _listed(folder / name) for name in names}


def _split_of(folder: Path) -> str:
    split = _read(folder / STATE).get("_split")
    return split if isinstance(split, str) else ""


def _listed(folder: Path) -> list[Path]:
    """Return the Arrow files that a saved dataset lists."""
    state = _read(folder / STATE)
    given = state.get("_data_files")
    entries = given if isinstance(given, list) else []
    listed = [str(entry.get("filename")) for entry in entries if isinstance(entry, dict)]
    if not listed or not all(_is_plain(name) and name.endswith(".arrow") for name in listed):
        raise UserError(
            f"{folder}: a folder with a {STATE} that names no data files; is it one of "
            "save_to_disk? save it again, or give the file"
        )
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{folder}: saved with a selection of its rows beside them; call flatten_indices() "
            "and save it again"
        )
    files = [folder / name for name in listed]
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(f"{missing[0]}: no such file, though {STATE} lists it; copy it too")
    return files


def _is_plain(name: Any) -> bool:
    """Return whether a name given in a file stays within the folder."""
    return isinstance(name, str) and name == PurePath(name).name and name not in ("", ".", "..")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as opened:
            known = json.loads(opened.read(_MOST_STATE))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    if not isinstance(known, dict):
        raise UserError(f"{file}: not a JSON object")
    return known


def _grouped(folder: Path) -> Parts:
    """Return the data files below a folder, by the configuration and split in their names."""
    files = _files(folder)
    kinds = {suffix for file in files if (suffix := file_suffix(file.name))}
    kind = next((suffix for suffix in _ORDER if suffix in kinds), None)
    if kind is None:
        raise UserError(
            f"{folder}: cannot be read: a folder without data files; give a file, or a folder of "
            "save_to_disk or of Parquet files"
        )
    parts: Parts = {}
    for file in sorted(file for file in files if file_suffix(file.name) == kind):
        parts.setdefault(_part_of(file.relative_to(folder)), []).append(file)
    return parts


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        for directory, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [
                file
                for name in names
                if name not in _NO_DATA
                and file_suffix(name)
                and not name.startswith(".")
                and (file := Path(directory) / name).is_file()
            ]
            if len(found) > MOST_FILES:
                raise UserError(f"{folder}: more than {MOST_FILES:,} data files; give one of them")
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from None
    return found


def _part_of(file: Path) -> tuple[str, str]:
    """Return the configuration and split of a file, from its path below the folder.

    `data/train-00000-of-00002.parquet` and `train/0000.parquet` both belong to the split `train`;
    the folders above that, except `data`, name the configuration.
    """
    folders = [part for part in file.parts[:-1] if part != "data"]
    split = _SHARD.sub("", without_suffix(file.name))
    if not split and folders:
        split = folders.pop()
    return "/".join(folders), split
