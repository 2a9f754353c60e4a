"""The commands that draw a figure of its own: `geomix figure …`."""

from __future__ import annotations

from pathlib import Path

import click

from geomix.util.terminal import echo


@click.group()
def figure() -> None:
    """Draw a figure, as PDF and PNG with its table as CSV."""


@figure.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="SET",
    help="Only these sets: D_A; again for more [all that a stage trains on].",
)
@click.option(
    "--metric",
    type=click.Choice(
        ["exact_match", "alias_match", "token_f1", "rouge_l", "final_number", "loss"]
    ),
    default="exact_match",
    show_default=True,
    help="Within a stage only exact match and loss are measured.",
)
@click.option("--log", is_flag=True, help="Steps on a logarithmic scale.")
def retention(runs: tuple[Path, ...], sets: tuple[str, ...], metric: str, log: bool) -> None:
    """Retention along training, a line an arm; several runs are compared in one figure.

    RUN is a run's folder, or a sweep's for all of its; without it the newest under runs/ is
    taken. Runs that differ in their seed alone give one line with an interval.
    """
    from geomix.analysis.retention import retention_figure
    from geomix.cli.runs import named_runs

    for file in retention_figure(named_runs(runs), sets, metric, log=log):
        echo(file)
