"""The commands on records: `geomix record` and `geomix export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomix.util.terminal import echo

if TYPE_CHECKING:
    from geomix.snapshots.records import Format


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="A new folder; a run with arms gets one within it for each.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "numpy"]),
    default="parquet",
    show_default=True,
    help="One tidy table a kind of array, or an .npz a snapshot.",
)
def export(run: Path, folder: Path, form: Format) -> None:
    """Export a run's records for programs that do not read HDF5: numbers, labels and units."""
    from geomix.runs.directory import open_run
    from geomix.snapshots.records import export_run
    from geomix.util.progress import telling

    with telling():
        files = export_run(open_run(run), folder, form)
    for file in files:
        echo(file)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--at",
    multiple=True,
    metavar="WHEN",
    help="As record.at: boundaries, log:N, every:N or a step [every checkpoint].",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="record.KEY=VALUE",
    help="Override what is recorded: --set record.probes=64",
)
def record(run: Path, at: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Record the checkpoints of a run afterwards, exactly as during training.

    RUN is a run's folder, finished or interrupted; each of its arms is recorded. Prints the file of
    every snapshot once it is on disk; existing ones are not made again.
    """
    from geomix.experiments.record_offline import record_run
    from geomix.models.load import quiet_libraries
    from geomix.runs.directory import open_run
    from geomix.util.progress import telling

    quiet_libraries()
    with telling():
        record_run(open_run(run), at or None, overrides, echo)
