"""Files of `geomix analyze forgetting-path`: arrays, table and figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomix.analysis.forgetting_path.notes import notes
from geomix.analysis.forgetting_path.split import ArmSplit, ForgettingPath, to_json
from geomix.analysis.parameter_groups import By
from geomix.analysis.replicates import suffix_of
from geomix.figures.forgetting_path import caption, draw
from geomix.figures.style import save_figure
from geomix.runs.directory import RunDirectory
from geomix.util.files import write_json
from geomix.util.hdf5 import put, scale, written_hdf5


def save_all(result: ForgettingPath, runs: Sequence[RunDirectory], name: str, by: By) -> list[Path]:
    """Save the arrays, the table and the figure in the first run's folders; return the files.

    Args:
        result: the split.
        runs: the analysed runs.
        name: the probe set of the figure and the notes; the files hold all.
        by: the parameter groups, one for each row of the table.
    """
    stem = stem_of(result, runs)
    table = f"{stem}_by_{by}" if by != "layer" else stem
    folder = runs[0].analysis_folder
    files = [folder / f"{table}.h5", folder / f"{table}.json"]
    rows = list(result.cell_rows(name))
    with runs[0].saving():
        with written_hdf5(files[0]) as file:
            file.attrs["analysis"] = "forgetting_path"
            file.attrs["schema_version"] = 1
            file.attrs["stage"] = result.stage
            file.attrs["by"] = by
            for arm in result.arms:
                _write_arm(file.create_group(arm.arm), arm, result.groups)
        write_json(files[1], to_json(result, notes(result, name)))
        drawn, figures = draw(rows), runs[0].figure_folder
        files += save_figure(drawn, rows, figures, f"{stem}_{name}", caption(rows))
    return files


def stem_of(result: ForgettingPath, runs: Sequence[RunDirectory]) -> str:
    """Return the common start of the files' names; like all files they count stages from 0."""
    return f"forgetting_path_stage{result.stage}" + suffix_of([str(run.path) for run in runs])


def _write_arm(group: Any, arm: ArmSplit, groups: tuple[str, ...]) -> None:
    """Write a group per arm with labelled axes; `xarray.open_dataset(path, group=arm)` reads it."""
    scale(group, "run", arm.runs, "folder of the run")
    scale(group, "group", groups, "of parameters; the first is the whole model")
    scale(group, "set", arm.sets, "probe set")
    scale(group, "part", arm.parts, "of the update")
    axes = ("run", "group", "set", "part")
    for rule, text in (
        ("simpson", "change of the set's loss that is put down to it, by Simpson's rule"),
        ("trapezoid", "the same by the trapezoid rule"),
        ("coarser", "the same with half as many snapshots, by the trapezoid rule"),
    ):
        put(group, rule, getattr(arm, rule), axes, units="nat", text=text)
    text = "change of the set's recorded mean loss"
    put(group, "measured", arm.measured, ("run", "set"), units="nat", text=text)
