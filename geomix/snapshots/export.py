"""Snapshots for programs that do not read HDF5: tidy Parquet tables, or NumPy archives.

NumPy: `stage0-step000120.npz`, each array under its path in the HDF5 file, texts as Unicode, no
pickle; `attributes` is a text of JSON. Parquet: see `geomix.snapshots.parquet`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from geomix.snapshots.arrays import attributes_of, datasets_of, json_value, opened, read
from geomix.snapshots.parquet import write_parquet
from geomix.util.errors import UserError
from geomix.util.new_folder import make_folder
from geomix.util.progress import phase

Format = Literal["parquet", "numpy"]


@dataclass(frozen=True, slots=True)
class Source:
    """Snapshots to export into one folder.

    Attributes:
        snapshots: their files, in order.
        beside: a file to copy unchanged, if it exists: the texts of the probe sets.
    """

    snapshots: Sequence[Path]
    beside: Path


def export(sources: Mapping[str, Source], folder: Path, form: str) -> list[Path]:
    """Write snapshots into a new folder, which appears once all of it is written.

    A killed and repeated export gives the same result.

    Args:
        sources: each goes into the folder of its name within the new one, "" into the new one.
        folder: a new one.
        form: `parquet` or `numpy`.

    Returns:
        The files in it.

    Raises:
        UserError: the folder exists, there is no such format, or a snapshot is damaged.
    """
    if form not in _WRITERS:
        raise UserError(f"format '{form}': one of {', '.join(get_args(Format))}")

    def fill(partial: Path) -> None:
        for name, source in sources.items():
            target = partial / name
            target.mkdir(exist_ok=True)
            with phase(f"exporting {name or folder}, snapshots", len(source.snapshots)) as advance:
                _WRITERS[form](source.snapshots, target, advance)
            if source.beside.is_file():
                shutil.copyfile(source.beside, target / source.beside.name)

    files = [file.absolute() for source in sources.values() for file in source.snapshots]
    make_folder(folder, {"format": form, "snapshots": [*map(str, files)]}, fill)
    return [file for name in sources for file in sorted((folder / name).iterdir())]


def _write_numpy(snapshots: Sequence[Path], folder: Path, advance: Callable[[int], None]) -> None:
    for path in snapshots:
        arrays = {}
        with opened(path) as file:
            for name in datasets_of(path):
                values = read(file[name], ...)
                arrays[name] = values.astype(np.str_) if values.dtype.kind == "O" else values
        arrays["attributes"] = np.array(json.dumps(attributes_of(path), default=json_value))
        np.savez(folder / f"{path.stem}.npz", allow_pickle=False, **arrays)
        advance(1)


_WRITERS: dict[str, Callable[[Sequence[Path], Path, Callable[[int], None]], None]] = {
    "parquet": write_parquet,
    "numpy": _write_numpy,
}
