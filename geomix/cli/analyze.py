"""The commands that compute: `geomix analyze …`, one for every registered analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geomix.analysis import ANALYSES
from geomix.cli.options import parameters_of
from geomix.util.errors import UserError


class _Analyses(click.Group):
    """Group that builds the command of an analysis on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List all analyses without importing them."""
        return sorted(ANALYSES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of an analysis."""
        return _command(cmd_name) if cmd_name in ANALYSES else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Reject an unknown name, with the closest analysis."""
        if args and not args[0].startswith("-") and args[0] not in ANALYSES:
            raise UserError(ANALYSES.unknown(args[0]))
        return super().resolve_command(ctx, args)


@click.group(cls=_Analyses)
def analyze() -> None:
    """Compute a table, a figure and a verdict from a run's records."""


def _command(name: str) -> click.Command:
    """Build the command of an analysis: its own options, and those common to all."""
    kind = ANALYSES[name]

    def run(runs: tuple[Path, ...], full: bool, as_json: bool, **given: Any) -> None:
        from geomix.analysis.driver import command
        from geomix.cli.runs import named_runs

        command(kind(), named_runs(runs), kind.Options(**given), as_json=as_json, full=full)

    folders = click.Argument(
        ["runs"], nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path)
    )
    text = "Print all tables and notes behind the answer."
    shared = [
        click.Option(["--full"], is_flag=True, help=text),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the whole table as JSON."),
    ]
    parameters = [folders, *parameters_of(kind.Options), *shared]
    return click.Command(name, callback=run, params=parameters, help=kind.__doc__)
