"""`geomix analyze forgetting-path`: where in the network, and from which source, a loss changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomix.analysis.forgetting_path.answer import answer
from geomix.analysis.forgetting_path.notes import notes
from geomix.analysis.forgetting_path.record import asked_stage
from geomix.analysis.forgetting_path.split import ArmSplit, ForgettingPath, measure, to_json
from geomix.analysis.forgetting_path.tables import render
from geomix.analysis.parameter_groups import By
from geomix.analysis.replicates import together
from geomix.figures.forgetting_path import draw
from geomix.figures.style import save_figure
from geomix.runs.directory import RunDirectory
from geomix.util.console import Console
from geomix.util.errors import UserError
from geomix.util.files import write_json
from geomix.util.hdf5 import put, scale, written_hdf5
from geomix.util.progress import phase, telling
from geomix.util.terminal import echo_json


def forgetting_path(
    runs: Sequence[RunDirectory], stage: int | None = None, name: str = "D_A", by: By = "layer"
) -> tuple[ForgettingPath, list[Path]]:
    """Measure, save the arrays, the table and the figure, and say which files these are.

    Args:
        runs: those that differ in nothing but their seeds are put together; what comes of several
            is saved in the first one's folders.
        stage: index from 0; None is the last one that is recorded.
        name: the probe set that the figure and the notes are about; the files hold all.
        by: what a row of the table stands for.

    Raises:
        UserError: there is no path to sum, no such set, or the runs cannot be put together.
    """
    result = measure(runs, stage, by)
    for arm in result.arms:
        if name not in arm.sets:
            raise UserError(f"--set {name}: {arm.runs[0]} recorded {', '.join(arm.sets)}")
    stem = _stem(result, runs)
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
        files += save_figure(draw(rows), rows, runs[0].figure_folder, f"{stem}_{name}")
    return result, files


def _stem(result: ForgettingPath, runs: Sequence[RunDirectory]) -> str:
    """How the files' names begin; like all files they count stages from 0."""
    return f"forgetting_path_stage{result.stage}" + together([str(run.path) for run in runs])


def _write_arm(group: Any, arm: ArmSplit, groups: tuple[str, ...]) -> None:
    """One group an arm, with labelled axes: `xarray.open_dataset(path, group=arm)` shows them."""
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


def command(
    runs: Sequence[RunDirectory],
    stage: str | None,
    name: str,
    by: By,
    as_json: bool,
    full: bool = False,
) -> None:
    """The command's body: compute, save, print the answer, or the whole result as JSON.

    Args:
        runs: as `forgetting_path` takes them.
        stage: its number, from 1, or its name; None is the last one that is recorded.
        name: the probe set.
        by: what a row stands for.
        as_json: whether the whole result is printed as JSON, and nothing else.
        full: whether all tables and notes follow the answer.
    """
    index = None if stage is None else asked_stage(runs, stage)
    with telling(), phase("splitting the path"):
        result, files = forgetting_path(runs, index, name, by)
    if as_json:
        echo_json(to_json(result, notes(result, name)))
        return
    console = Console()
    for line in answer(result, name, _stem(result, runs), runs[0], files, full):
        console.print(line, soft_wrap=True)
    if full:
        console.print()
        console.print(render(result, name))
        console.print()
        for file in files:
            console.print(str(file), soft_wrap=True)
