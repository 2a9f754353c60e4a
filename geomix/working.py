"""What a command is doing: a line that moves on a terminal, else a line for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_told: ContextVar[Callable[[str, bool], object] | None] = ContextVar("_told", default=None)


@contextmanager
def shown_working() -> Iterator[None]:
    """Within the block, show on stderr what `now` is told."""
    from rich.spinner import Spinner

    from geomix.console import Console, Live

    console = Console(stderr=True)
    if not console.is_terminal:

        def line(text: str, long: bool) -> None:
            if long:
                console.print(f"{text} …", soft_wrap=True)

        with _telling(line):
            yield
        return
    with (
        Live(Spinner("dots", "reading the data"), console=console, transient=True) as live,
        _telling(lambda text, _: live.update(Spinner("dots", text))),
    ):
        yield


@contextmanager
def _telling(tell: Callable[[str, bool], object]) -> Iterator[None]:
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def now(text: str, *, long: bool = False) -> None:
    """Tell what is being done, if anyone is to be told.

    Args:
        text: in few words, without an end.
        long: whether it may take so long that it is told where there is no terminal too.
    """
    told = _told.get()
    if told is not None:
        told(text, long)
