"""Progress of what takes long: a live line on a terminal, a line every half a minute elsewhere.

Whatever may take long says so with `phase` or `during`; it knows nobody who shows it. A command
shows it with `telling`, or, while it trains, with `geomix.cli.progress.shown`. Where nobody shows
anything (a notebook, `--quiet`, `--json`), a phase costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from rich.text import Text


P = ParamSpec("P")
R = TypeVar("R")

QUIET_SECONDS = 30.0
"""Without a terminal nothing is silent for longer."""

_LIVE_SECONDS = 1.0
"""On a terminal a phase that is shorter is not shown: the line would flicker."""

_LOOKS = 1.0
"""Seconds between two looks at the clock."""

_LONGEST = 60
"""Characters of what is named, its end: folders begin alike."""


class Phase:
    """Something under way.

    Args:
        what: in a few words.
        total: how many pieces it has; 0 where that is not known.
        started: seconds of the clock.
    """

    def __init__(self, what: str, total: int, started: float) -> None:
        self.what = what if len(what) <= _LONGEST else f"…{what[1 - _LONGEST :]}"
        self.total, self.started, self.done = total, started, 0

    def advance(self, pieces: int = 1) -> None:
        """So many more pieces are done."""
        self.done += pieces

    def __str__(self) -> str:
        return f"{self.what} {self.done:,}/{self.total:,}" if self.total else self.what


class Teller:
    """Knows the phases that are under way, one within the other, and when something was said.

    Args:
        say: prints a line that stays.
        idle: gives the line of what is under way while no phase is; "" where that is nothing.
        clock: seconds, of any start.
        announces: whether a phase that is known to take long has a line when it begins.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        idle: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        announces: bool = False,
    ) -> None:
        self._say, self._idle, self._clock, self._announces = say, idle, clock, announces
        self.phases: list[Phase] = []
        self._said = clock()

    def begin(self, what: str, total: int, long: bool = False) -> Phase:
        """A phase begins within those under way."""
        phase = Phase(what, total, self._clock())
        self.phases.append(phase)
        if long and self._announces:
            self.said()
            self._say(f"{what} …")
        return phase

    def end(self, phase: Phase) -> None:
        """A phase ends."""
        self.phases.remove(phase)

    def said(self) -> None:
        """A line was printed: the next one may wait."""
        self._said = self._clock()

    def line(self) -> str:
        """What is under way, since when, and how long it may take; "" where that is nothing."""
        phases = list(self.phases)  # another thread may look
        if not phases:
            return ""
        seconds = self._clock() - phases[0].started
        text = f"{', '.join(map(str, phases))}  {duration(seconds)}"
        last = phases[-1]
        if 0 < last.done < last.total:
            left = (self._clock() - last.started) * (last.total - last.done) / last.done
            text += f", {duration(left)} left"
        return text

    def live(self) -> str:
        """The line, once it has been so for a while."""
        phases = list(self.phases)
        old = bool(phases) and self._clock() - phases[0].started >= _LIVE_SECONDS
        return self.line() if old else ""

    def look(self) -> None:
        """Print the line if nothing was said for too long."""
        if self._clock() - self._said >= QUIET_SECONDS:
            self.mention(self.line() or self._idle())

    def mention(self, line: str) -> None:
        """Print a line if nothing was said for too long, else let it go."""
        if line and self._clock() - self._said >= QUIET_SECONDS:
            self.said()
            self._say(line)


_TELLER: ContextVar[Teller | None] = ContextVar("teller", default=None)


@contextmanager
def phase(what: str, total: int = 0, *, long: bool = False) -> Iterator[Callable[[int], None]]:
    """Have it known that something is under way, which may take long.

    Args:
        what: in a few words, as `scoring D_A`.
        total: how many pieces it has; 0 where that is not known.
        long: whether it is known to take long: then a line says so at once where there is no
            terminal.

    Yields:
        What is told how many more of them are done.
    """
    teller = _TELLER.get()
    if teller is None:
        yield lambda _: None
        return
    begun = teller.begin(what, total, long)
    try:
        yield begun.advance
    finally:
        teller.end(begun)


def during(what: Callable[..., str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a phase.

    Args:
        what: gives its text from the function's arguments.
    """

    def made(act: Callable[P, R]) -> Callable[P, R]:
        @wraps(act)
        def acted(*arguments: P.args, **named: P.kwargs) -> R:
            if _TELLER.get() is None:
                return act(*arguments, **named)
            with phase(what(*arguments, **named)):
                return act(*arguments, **named)

        return acted

    return made


def said() -> None:
    """Let it be known that a line was printed."""
    teller = _TELLER.get()
    if teller is not None:
        teller.said()


@contextmanager
def told_by(teller: Teller, *, looking: bool) -> Iterator[None]:
    """Have a teller know all phases within the block.

    Args:
        teller: that shows them.
        looking: whether a thread looks at the clock for it.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOKS):
            with suppress(OSError):  # nobody may be reading
                teller.look()

    thread = threading.Thread(target=watch, daemon=True)
    token = _TELLER.set(teller)
    if looking:
        thread.start()
    try:
        yield
    finally:
        _TELLER.reset(token)
        over.set()
        if looking:
            thread.join()


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Show the phases of a command on stderr.

    Yields:
        What is told of steps on the way: a terminal shows each, elsewhere a line may wait.
    """
    from geomix.util.console import LastingConsole, Live

    console = LastingConsole(stderr=True)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    teller = Teller(say, announces=not console.is_terminal)
    if not console.is_terminal:
        with told_by(teller, looking=True):
            yield teller.mention
        return
    piped = not os.isatty(1)  # what goes elsewhere than to the terminal must not come here
    live = Live(
        get_renderable=lambda: one_line(teller.live()),
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=not piped,
    )
    with told_by(teller, looking=False), live:
        yield say


def one_line(text: str) -> Text:
    """A text that a live region shows in one line, its end left out where it is too long."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def duration(seconds: float) -> str:
    """0:07, 12:07 or 3:12:07."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
