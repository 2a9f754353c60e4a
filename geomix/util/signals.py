"""Requests to end: SIGTERM, as a cluster sends it, or Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from geomix.util.errors import Interrupted

EXIT = 75
"""Exit status of a run that was asked to end and can be resumed (EX_TEMPFAIL)."""

_NOTICE = b"\ngeomix: saving after this step; Ctrl-C again ends at once\n"

_asked: list[int] = []
"""Signals received within the innermost `asked_to_end`."""

_blocks: list[None] = []
"""One entry for each open `ending_at_once`."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the block at the first signal, for work that needs no saving, within `asked_to_end`.

    Raises:
        Interrupted: such a signal came, within the block or before it.
    """
    _blocks.append(None)
    try:
        if _asked:
            raise KeyboardInterrupt
        yield
    except KeyboardInterrupt:  # no library mistakes it for an error of its own
        if _asked:
            raise Interrupted from None
        raise
    finally:
        _blocks.pop()


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Note the first signal within the block; a second Ctrl-C ends at once."""
    asked = _asked
    asked.clear()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if _blocks:
            asked.append(number)
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            if asked:
                raise KeyboardInterrupt
            with suppress(OSError):  # nobody may be reading
                os.write(2, _NOTICE)  # print would fail where it interrupts another print
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.clear()
