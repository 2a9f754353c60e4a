"""The commands that compute: `geomix analyze …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from geomix.analysis.grad_angle.result import MetricName
    from geomix.analysis.grad_angle.sources import From
    from geomix.analysis.parameter_groups import By, Kind


@click.group()
def analyze() -> None:
    """Compute a table, a figure and a verdict from a run's records."""


@analyze.command("grad-angle")
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option(
    "--at",
    multiple=True,
    metavar="MOMENT",
    help="Only these moments: 0, A, B, +4 (steps into a later stage), A+4; with commas, or again.",
)
@click.option(
    "--by",
    type=click.Choice(["layer", "module", "layer-module", "head", "parameter"]),
    default="layer",
    show_default=True,
    help="What a row of the table stands for.",
)
@click.option(
    "--metric",
    type=click.Choice(["euclidean", "adam"]),
    default="euclidean",
    show_default=True,
    help="Of the inner products; Adam's has one v̂ for all arms of a run.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["auto", "record", "weights"]),
    default="auto",
    show_default=True,
    help="What it is taken from; auto: the weights where they are kept, else the record.",
)
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Of each set, whose single gradients are compared where weights are kept; 0: none.",
)
@click.option("--full", is_flag=True, help="Print all tables and notes behind the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole table as JSON.")
def grad_angle(
    runs: tuple[Path, ...],
    at: tuple[str, ...],
    by: Kind,
    metric: MetricName,
    source: From,
    examples: int,
    full: bool,
    as_json: bool,
) -> None:
    """Cosines between the gradients of D_A, D_B, D_M and a held-out set, and with the update.

    RUN is a run's folder; without it the newest under runs/ is taken. Runs that differ in their
    seed alone give means with an interval.
    """
    from geomix.analysis import grad_angle as analysis
    from geomix.analysis.grad_angle.sources import Asked
    from geomix.runs.directory import newest_run, open_run

    opened = [open_run(run) for run in runs] or [newest_run()]
    moments = tuple(item for text in at for item in text.split(","))
    analysis.command(opened, Asked(by, metric, moments, source, examples), as_json, full)


@analyze.command("forgetting-path")
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option(
    "--stage",
    metavar="STAGE",
    help="The stage, by number, from 1, or by name [the last one that is recorded].",
)
@click.option("--set", "name", default="D_A", show_default=True, help="Probe set to look at.")
@click.option(
    "--by",
    type=click.Choice(["layer", "module", "parameter"]),
    default="layer",
    show_default=True,
    help="What a row of the table stands for.",
)
@click.option("--full", is_flag=True, help="Print all tables and notes behind the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole table as JSON.")
def forgetting_path(
    runs: tuple[Path, ...], stage: str | None, name: str, by: By, full: bool, as_json: bool
) -> None:
    """Split what a stage did to a set's loss by layer and by the source of the updates.

    RUN is a folder of a run with `record: {preset: path}`; without it the newest under runs/ is
    taken. Runs that differ in their seed alone give means with an interval.
    """
    from geomix.analysis import forgetting_path as analysis
    from geomix.runs.directory import newest_run, open_run

    opened = [open_run(run) for run in runs] or [newest_run()]
    analysis.command(opened, stage, name, by, as_json, full)
