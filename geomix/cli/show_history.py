"""Parts of `geomix show` on transfer between stages and on forgotten facts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from geomix.runs.directory import RunDirectory
from geomix.runs.history import Forgetting, Transfer, forgetting_of, transfer_of
from geomix.util.reading import as_written

_HEADING = Text.assemble(
    ("Forgetting events", "bold"), ": facts right at one evaluation and wrong at the next"
)


def read_history(run: RunDirectory) -> tuple[list[Transfer], list[Forgetting]]:
    """Return the retention matrix and transfer of each arm, and its sets' histories of facts.

    Raises:
        UserError: a file of the run cannot be read.
    """
    transfers: list[Transfer] = []
    histories: list[Forgetting] = []
    for arm in run.arms:
        if arm.metrics_file.exists():
            with as_written(arm.metrics_file):
                found = transfer_of(arm)
            transfers += [found] if found else []
            with as_written(arm.path / "stages"):
                histories += forgetting_of(arm)
    return transfers, histories


def history_parts(run: RunDirectory) -> list[RenderableType]:
    """Return both as tables, in at most 80 columns; nothing if there is nothing to report yet."""
    transfers, histories = read_history(run)
    several = run.arms != [run]
    parts: list[RenderableType] = []
    if any(transfer.forward is not None for transfer in transfers):
        parts += ["", _transfers(transfers, several)]
    if any(len(history.steps) > 1 for history in histories):
        parts += ["", _HEADING, _events(histories, several)]
    return parts


def _transfers(transfers: Sequence[Transfer], several: bool) -> Table:
    table = _columns(["points of exact match"], ["backward\ntransfer", "forward\ntransfer"])
    table.add_column("average\nforgetting", justify="right")
    for t in transfers:
        cells = ("–" if x is None else f"{x:+.1f}" for x in (t.backward, t.forward))
        lost = "–" if t.forgetting is None else f"{t.forgetting:.1f}"
        table.add_row(Text(t.arm if several else ""), *cells, lost)
    return table


def _events(histories: Sequence[Forgetting], several: bool) -> Table:
    numbers = ["facts", "never\nlearnt", "learnt at\nstep (median)", "forgotten\nonce or more"]
    table = _columns(["arm", "set"] if several else ["set"], [*numbers, "events", "evalu-\nations"])
    for history in histories:
        learnt = [step for step in history.learnt if step is not None]
        row = (
            history.facts,
            history.facts - len(learnt),
            f"{median(learnt):g}" if learnt else "–",
            sum(count > 0 for count in history.events),
            sum(history.events),
            len(history.steps),
        )
        names = [history.arm, history.set] if several else [history.set]
        table.add_row(*map(Text, names), *map(str, row))
    return table


def _columns(names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table
