"""The commands that draw a single figure: `geomix figure …`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from geomix.cli.options import EntryOf
from geomix.figures import FIGURES
from geomix.measures.scores import SCORES
from geomix.util.errors import UserError
from geomix.util.terminal import echo


class _Figures(click.Group):
    """Group that builds the command of a registered figure on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all figures."""
        return sorted({*super().list_commands(ctx), *FIGURES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a figure."""
        own = super().get_command(ctx, cmd_name)
        return own or (_redrawing(cmd_name) if cmd_name in FIGURES else None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Reject an unknown name, with the closest figure."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise UserError(FIGURES.unknown(args[0]))
        return super().resolve_command(ctx, args)


@click.group(cls=_Figures)
def figure() -> None:
    """Draw a figure of a run or of a table, as PDF and PNG."""


def _redrawing(name: str) -> click.Command:
    """Build the command that redraws a figure from its table."""

    def run(table: Path, out: Path | None, sets: str | None = None) -> None:
        from geomix.figures.style import save_drawing
        from geomix.figures.table import read_table

        known = FIGURES[name]
        rows = read_table(table, known.columns)
        if sets is None or known.draw_pair is None:
            drawn = known.draw(rows)
        else:
            drawn = known.draw_pair(rows, _pair(sets, rows))
        for file in save_drawing(drawn, out or Path(table.stem)):
            echo(file)

    path = click.Path(path_type=Path)
    text = "Files without their endings [the table's name, here]."
    parameters = [
        click.Argument(["table"], metavar="TABLE.csv", type=path),
        click.Option(["--out"], type=path, help=text),
    ]
    if FIGURES[name].draw_pair is not None:
        chosen = "The two sets that are compared [D_A,D_B]."
        parameters.append(click.Option(["--sets"], metavar="SET,SET", help=chosen))
    advice = "Draw it again from the CSV that lies beside it, or from a table of your own."
    return click.Command(
        name,
        callback=run,
        params=parameters,
        help=f"{FIGURES[name].summary}\n\n{advice} Columns: {', '.join(FIGURES[name].columns)}.",
    )


def _pair(sets: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the two sets of a table of pairs.

    Raises:
        UserError: they are not two, or the table has no row on one.
    """
    names = [name.strip() for name in sets.split(",")]
    if len(set(names)) != 2 or len(names) != 2:  # noqa: PLR2004
        raise UserError(f"--sets {sets[:60]}: give two different sets, such as --sets D_A,D_C")
    there = list(dict.fromkeys(str(row[key]) for row in rows for key in ("first", "second")))
    if absent := [name for name in names if name not in there]:
        raise UserError(f"--sets: the table has no {absent[0]}; there are: {', '.join(there)}")
    return names[0], names[1]


@figure.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="SET",
    help="Only these sets: D_A; repeat for more [all that a stage trains on].",
)
@click.option(
    "--metric",
    type=EntryOf(SCORES),
    default="exact_match",
    show_default=True,
    help="A score; some are measured at the boundaries of stages alone.",
)
@click.option("--log", is_flag=True, help="Steps on a logarithmic scale.")
def retention(runs: tuple[Path, ...], sets: tuple[str, ...], metric: str, log: bool) -> None:
    """Draw retention along training, a line an arm; several runs are compared in one figure.

    RUN is a run's folder, or a sweep's for all of its runs; the default is the newest under runs/.
    Runs that differ only in their seed give one line with an interval.
    """
    from geomix.analysis.retention import retention_figure
    from geomix.cli.runs import named_runs

    for file in retention_figure(named_runs(runs), sets, metric, log=log):
        echo(file)
