"""Snapshots for programs that do not read HDF5: tidy Parquet tables, or NumPy archives.

NumPy: `stage0-step000120.npz`, each array under its path in the HDF5 file, texts as Unicode, no
pickle; `attributes` is a text of JSON. Parquet: see `geomix.record.parquet`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from geomix.atomic import written_folder
from geomix.errors import UserError
from geomix.record.labelled import attributes_of, datasets_of, json_value, opened, read
from geomix.record.parquet import write_parquet

Format = Literal["parquet", "numpy"]


def export(snapshots: Sequence[Path], folder: Path, form: str, beside: Path) -> list[Path]:
    """Write snapshots into a new folder, which is there once all of it is written.

    Args:
        snapshots: their files, in order.
        folder: a new one.
        form: `parquet` or `numpy`.
        beside: a file that is copied as it is, if it is there: the texts of the probe sets.

    Returns:
        The files in it.

    Raises:
        UserError: the folder is there already, there is no such format, or a snapshot is damaged.
    """
    if form not in _WRITERS:
        raise UserError(f"format '{form}': one of {', '.join(get_args(Format))}")
    if os.path.lexists(folder):  # a link to what is not there, too
        raise UserError(f"{folder}: there already; name a folder that is not there yet")
    with written_folder(folder) as partial:
        _WRITERS[form](snapshots, partial)
        if beside.is_file():
            shutil.copyfile(beside, partial / beside.name)
    return sorted(folder.iterdir())


def _write_numpy(snapshots: Sequence[Path], folder: Path) -> None:
    for path in snapshots:
        arrays = {}
        with opened(path) as file:
            for name in datasets_of(path):
                values = read(file[name], ...)
                arrays[name] = values.astype(np.str_) if values.dtype.kind == "O" else values
        arrays["attributes"] = np.array(json.dumps(attributes_of(path), default=json_value))
        np.savez(folder / f"{path.stem}.npz", allow_pickle=False, **arrays)


_WRITERS: dict[str, Callable[[Sequence[Path], Path], None]] = {
    "parquet": write_parquet,
    "numpy": _write_numpy,
}
