"""The command `geomix study`; it imports its dependencies when called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomix.util.terminal import echo, echo_json

if TYPE_CHECKING:
    from geomix.studies.claims import Judged


@click.group()
def study() -> None:
    """Judge a study's claims."""


@study.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the judged claims as JSON.")
def verdict(folder: Path, as_json: bool) -> None:
    """Judge a study's declared claims from its tables.

    FOLDER holds `claims.yaml`, written before the runs, and the CSV tables of the runs. Each claim
    gets its effect, the interval over paired seeds, and `supported`, `negligible`, `refuted` or
    `undetermined`; they are written to verdicts.csv in the folder.
    """
    from geomix.studies.claims import judge, load_claims

    found = judge(folder, load_claims(folder))
    _write(folder / "verdicts.csv", found)
    if as_json:
        echo_json([asdict(one) for one in found])
        return
    for line in _lines(found):
        echo(line)
    echo(f"table: {folder / 'verdicts.csv'}")


def _lines(found: list[Judged]) -> Iterable[str]:
    from geomix.analysis.answer import aligned, wrapped
    from geomix.studies.claims import overall

    for claim, whole in overall(found):
        ones = [one for one in found if one.claim == claim]
        yield from wrapped(f"{claim}: {whole}")
        rows = [
            (one.of or "all", f"{one.estimate:+.3g}", *_interval(one), f"n = {one.n}", one.verdict)
            for one in ones
        ]
        yield from (f"  {line}" for line in aligned(rows))
    first = found[0]
    yield from wrapped(
        f"Student's t over paired seeds, level {first.level:.3g}; smallest effect of interest "
        f"{first.smallest:g} {first.unit if first.unit != '1' else ''}".rstrip()
        + "."
    )


def _interval(one: Judged) -> tuple[str, str]:
    """Return the interval and its unit."""
    return f"[{one.low:+.3g}, {one.high:+.3g}]", "" if one.unit == "1" else one.unit


def _write(path: Path, found: list[Judged]) -> None:
    import csv
    import io

    from geomix.util.files import write_text

    text = io.StringIO()
    table = csv.DictWriter(text, list(asdict(found[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(one) for one in found)
    write_text(path, text.getvalue())
