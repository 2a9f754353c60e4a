"""The commands on records: `geomix export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from geomix.records import Format


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="A new folder; of a run with arms, one within it for each.",
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
    """Write a run's records for programs that do not read HDF5, numbers, labels and units.

    RUN is a run's folder.
    """
    from geomix.records import export_run
    from geomix.run import open_run

    for file in export_run(open_run(run), folder, form):
        click.echo(file)
