"""What a user sees while a run trains: a live line on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from geomix.train.evaluate import SetResult
from geomix.train.step import StepResult


class Display:
    """Shows one run: stage, step, loss and the last measured retention."""

    def __init__(self, console: Console, live: Progress, label: str) -> None:
        self._console, self._live, self._label = console, live, label
        self._task: TaskID | None = None
        self._stage = ""
        self._started = 0.0
        self._steps = 0
        self._loss = float("nan")
        self._retention = ""

    def stage(self, name: str, steps: int) -> None:
        """A stage begins: the line of the one before is closed."""
        self.close()
        self._stage, self._steps, self._started = name, steps, time.monotonic()
        self._task = self._live.add_task(self._title(), total=steps, loss="", retention="")

    def step(self, result: StepResult) -> None:
        """Move on by a step."""
        self._loss = result.loss
        if self._task is not None:
            self._live.update(self._task, advance=1, loss=f"loss {result.loss:.3f}")

    def evaluation(self, results: dict[str, SetResult]) -> None:
        """Show the exact match of each set."""
        self._retention = " ".join(f"{n} {r.exact_match:.0f}%" for n, r in results.items())
        if self._task is not None:
            self._live.update(self._task, retention=self._retention)

    def close(self) -> None:
        """Replace the live line by a lasting one."""
        if self._task is None:
            return
        self._live.remove_task(self._task)
        self._task = None
        seconds = time.monotonic() - self._started
        self._console.print(
            f"{self._title():17} {self._steps:4} steps {seconds:4.0f} s  "
            f"loss {self._loss:<7.2g} {self._retention}",
            highlight=False,
            soft_wrap=True,
        )

    def _title(self) -> str:
        return f"{self._label}: {self._stage}" if self._label else self._stage


@contextmanager
def live_progress(console: Console) -> Iterator[Progress]:
    """The live region that the displays of a run's arms share."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[retention]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as live:
        yield live
