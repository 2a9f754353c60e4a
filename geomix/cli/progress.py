"""Progress of a training run: a live line on a terminal, ever rarer lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import ConsoleOptions
from rich.text import Text

from geomix.measures.scores import scores_in
from geomix.training.engine import Progress
from geomix.util.console import Console, Live
from geomix.util.progress import Teller, duration, one_line, said, told_by

_WINDOW = 50
"""Steps over which the speed is averaged."""

_FEW = 2
"""Number of sets whose retention is shown if space is short."""


class Standing:
    """Progress of an arm, as text.

    Args:
        arm: its name; "" for a run without arms.
        place: its number among the arms.
        clock: seconds, from any start.
    """

    def __init__(
        self, arm: str = "", place: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._arm, self._arm_place, self._clock = arm, place, clock
        self.retention: dict[str, str] = {}
        self._measured: tuple[Any, ...] = ()

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Note the start of a stage."""
        self.name, self.place, self.steps, self._batch = name, f"{index + 1}/{stages}", steps, batch
        self.step = 0
        self.loss = float("nan")
        self.started = self._clock()
        self._times: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)

    def logged(self, line: Mapping[str, Any]) -> None:
        """Update from a line of `metrics.jsonl`."""
        if line["event"] == "step":
            self.step, self.loss = line["step"], line["loss"]
            self._times.append((self._clock(), self.step))
        elif line["event"] == "evaluation":
            measured = (line["stage"], line["step"], line["moment"])
            if measured != self._measured:
                self._measured, self.retention = measured, {}
            more = "".join(f" {text} {name}" for name, text in scores_in(line, 1).items())
            self.retention[line["set"]] = f"{line['exact_match']:.0f}%{more}"

    @property
    def seconds(self) -> float:
        """Seconds since the stage started in this process."""
        return self._clock() - self.started

    def line(self, width: int) -> str:
        """Return the live line, at most `width` cells; the least important parts are dropped first.

        In order: the speed, the arm, the loss, sets but the first two, the time left.
        """
        sets = [f"{name} {known}" for name, known in self.retention.items()]
        parts = {
            "arm": f"{self._arm} {self._arm_place}".strip(),
            "stage": f"{self.name} {self.place}",
            "step": f"{self.step}/{self.steps}",
            "loss": f"loss {self.loss:.3f}" if self.step else "",
            "retention": " ".join(sets),
            "speed": "",
            "left": "",
        }
        if seconds := self._seconds_a_step():
            parts["speed"] = f"{_count(self._batch / seconds)} ex/s"
            parts["left"] = f"{duration(seconds * (self.steps - self.step))} left"
        narrower: list[tuple[str, str]] = [("speed", ""), ("arm", ""), ("loss", "")]
        narrower += [("retention", " ".join([*sets[:_FEW], "…"]))] if len(sets) > _FEW else []
        narrower += [("left", ""), ("retention", "")]
        while cell_len(_joined(parts)) > width and narrower:
            name, shorter = narrower.pop(0)
            parts[name] = shorter
        text = Text(_joined(parts))
        text.truncate(width, overflow="ellipsis")
        return text.plain

    def summary(self) -> str:
        """Return the line that stays when the stage is done."""
        sets = " ".join(f"{name} {known}" for name, known in self.retention.items())
        title = f"{self._arm}: {self.name}" if self._arm else self.name
        if not self.step:  # reused from another run
            return f"{title:17} taken as it is {self.seconds:4.0f} s  {sets}"
        return (
            f"{title:17} {self.step:4} steps {self.seconds:4.0f} s  loss {self.loss:<7.2g} {sets}"
        )

    def _seconds_a_step(self) -> float:
        """Return the seconds per step; 0 if unknown."""
        if len(self._times) <= 1:
            return 0.0
        (first, begun), (last, done) = self._times[0], self._times[-1]
        return (last - first) / (done - begun)


def _joined(parts: Mapping[str, str]) -> str:
    return "  ".join(part for part in parts.values() if part)


def _count(number: float) -> str:
    """Format with two digits or more: 0.31, 4.2, 312."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"  # noqa: PLR2004


class Display:
    """Display of one arm: a permanent line a stage, and the text of a line on its way.

    Args:
        console: of the output.
        standing: the progress to display.
    """

    def __init__(self, console: Console, standing: Standing) -> None:
        self._console, self._standing = console, standing
        self._open = False

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Display a new stage; close the previous stage's line."""
        self.close()
        self._standing.stage(name, index, stages, steps, batch)
        self._open = True

    def logged(self, line: Mapping[str, Any]) -> None:
        """Take the numbers of a line of `metrics.jsonl`."""
        self._standing.logged(line)

    def close(self) -> None:
        """Replace the live line by a permanent one."""
        if self._open:
            self._open = False
            _lasting(self._console, self._standing.summary())

    def live(self, width: int) -> str:
        """Return the text of the stage under way; "" between stages."""
        return self._standing.line(width) if self._open else ""


class Shown:
    """The `Report` for people: the live region that the displays of a run's arms share.

    Args:
        console: of the output.
        arms: names of the run's arms, in order.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        console: Console,
        arms: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self._arms, self._clock = console, list(arms), clock
        self.display: Display | None = None
        self.teller = Teller(self.log, self._idle, clock)

    def _idle(self) -> str:
        return self.display.live(sys.maxsize) if self.display else ""

    def begin(self, folder: Path) -> None:
        """Do nothing: `log` prints a line."""

    def arm(self, name: str) -> Progress:
        """Return the display of an arm; close the previous one."""
        self.close()
        place = f"{self._arms.index(name) + 1}/{len(self._arms)}" if name else ""
        self.display = Display(self.console, Standing(name, place, self._clock))
        return self.display

    def log(self, line: str) -> None:
        """Print a line above the live one."""
        _lasting(self.console, line)

    warn = log

    def close(self) -> None:
        """Close the last display."""
        if self.display is not None:
            self.display.close()

    def __rich_console__(self, _: object, options: ConsoleOptions) -> Iterator[Text]:
        line = self.teller.live()
        if not line and self.display:
            line = self.display.live(options.max_width)
        yield one_line(line)


def _lasting(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
    said()


@contextmanager
def shown(console: Console, arms: Sequence[str]) -> Iterator[Shown]:
    """Provide the `Report` for people; at the end of a completed run close its last line."""
    report = Shown(console, arms)
    if not console.is_terminal:
        with told_by(report.teller, looking=True):
            yield report
            report.close()
        return
    live = Live(report, console=console, refresh_per_second=2, transient=True)
    with told_by(report.teller, looking=False), live:
        yield report
        report.close()
