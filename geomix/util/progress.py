"""Progress of long operations: a live line on a terminal, ever rarer lines elsewhere.

Code that may take long reports it with `phase` or `during` and does not know who displays it. A
command displays it with `telling`, or, during training, with `geomix.cli.progress.shown`. Where
nothing is displayed (a notebook, `--quiet`, `--json`), a phase costs nothing.
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

_FIRST_SILENCE = 30.0
"""Seconds until the first line without a terminal."""

_LONGEST_SILENCE = 600.0
"""Most seconds between two lines without a terminal."""

_LIVE_SECONDS = 1.0
"""Shortest phase shown on a terminal: a line for shorter ones would flicker."""

_LOOKS = 1.0
"""Seconds between two checks of the clock."""

_LONGEST = 60
"""Longest label, in characters; its end is kept, since folders begin alike."""


def silence(passed: float) -> float:
    """Return how long a command without a terminal says nothing, in seconds.

    As long as it has run: a line comes at 0:30, 1:00, 2:00, 4:00, 8:00 and 16:00, then every ten
    minutes. So a machine that is four times as slow adds two lines and not four times as many.

    Args:
        passed: seconds from the command's start to its last line.
    """
    return min(_LONGEST_SILENCE, max(_FIRST_SILENCE, passed))


class Phase:
    """An operation under way.

    Args:
        what: its label, in a few words.
        total: number of steps; 0 if unknown.
        started: seconds of the clock.
    """

    def __init__(self, what: str, total: int, started: float) -> None:
        self.what = what if len(what) <= _LONGEST else f"…{what[1 - _LONGEST :]}"
        self.total, self.started, self.done = total, started, 0

    def advance(self, pieces: int = 1) -> None:
        """Record completed steps."""
        self.done += pieces

    def __str__(self) -> str:
        return f"{self.what} {self.done:,}/{self.total:,}" if self.total else self.what


class Teller:
    """Tracker of the phases under way, nested, and of the time of the last line.

    Args:
        say: prints a line that stays.
        idle: returns the line shown while no phase is under way; "" for none.
        clock: seconds, from any start.
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
        self._began = self._said = clock()

    def begin(self, what: str, total: int, long: bool = False) -> Phase:
        """Begin a phase within those under way."""
        phase = Phase(what, total, self._clock())
        self.phases.append(phase)
        if long and self._announces:
            self.said()
            self._say(f"{what} …")
        return phase

    def end(self, phase: Phase) -> None:
        """End a phase."""
        self.phases.remove(phase)

    def said(self) -> None:
        """Note that a line was printed: the next one may wait."""
        self._said = self._clock()

    def line(self) -> str:
        """Return the phases under way, their time and the time left; "" if there are none."""
        phases = list(self.phases)  # another thread may call this
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
        """Return the line once its phase has lasted a while."""
        phases = list(self.phases)
        old = bool(phases) and self._clock() - phases[0].started >= _LIVE_SECONDS
        return self.line() if old else ""

    def look(self) -> None:
        """Print the line after too long a silence."""
        if self._due():
            self.mention(self.line() or self._idle())

    def mention(self, line: str) -> None:
        """Print a line after too long a silence, else drop it."""
        if line and self._due():
            self.said()
            self._say(line)

    def _due(self) -> bool:
        """Return whether the silence has been too long."""
        return self._clock() - self._said >= silence(self._said - self._began)


_TELLER: ContextVar[Teller | None] = ContextVar("teller", default=None)


@contextmanager
def phase(what: str, total: int = 0, *, long: bool = False) -> Iterator[Callable[[int], None]]:
    """Report that something is under way that may take long.

    Args:
        what: label in a few words, as `scoring D_A`.
        total: number of steps; 0 if unknown.
        long: whether it is known to take long; a line without a terminal then says so at once.

    Yields:
        A callback that takes the number of further completed steps.
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
    """Report each call of a function as a phase.

    Args:
        what: returns the label from the function's arguments.
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
    """Report that a line was printed."""
    teller = _TELLER.get()
    if teller is not None:
        teller.said()


@contextmanager
def told_by(teller: Teller, *, looking: bool) -> Iterator[None]:
    """Report all phases within the block to a teller.

    Args:
        teller: displays them.
        looking: whether a thread polls the clock for it.
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
    """Display the phases of a command on stderr.

    Yields:
        A callback for intermediate lines: a terminal shows each, elsewhere a line may wait.
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
    piped = not os.isatty(1)  # redirected output must not appear here
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
    """Return a a text that a live region shows in one line, truncated where it is too long."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def duration(seconds: float) -> str:
    """Format seconds as 0:07, 12:07 or 3:12:07."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
