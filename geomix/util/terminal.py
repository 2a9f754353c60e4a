"""The one exit to the terminal: what a command prints passes here or `geomix.util.console`.

A text from outside (data, a model's files, a foreign run, a path, a library's warning) may hold
characters that set the clipboard, hide lines or turn the text around them. `screened` puts a stream
over stdout and stderr that replaces them, so that it does not matter who writes; `echo` and
`echo_json` are how geomix itself writes. What rich draws has control codes of its own: its texts
are screened by `geomix.util.console.Console` before they are styled. Files of data keep a text as
it is.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from geomix.util.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

ESCAPED = "\N{SYMBOL FOR ESCAPE}"
"""Stands for a character that would do something to the terminal."""

_ACTING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters (C0, DEL, C1) but newline and tab, and what turns the direction of all text up
to a counterpart, which may never come."""

_NOT_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What `json.dumps` leaves raw of the above, and halves of pairs, which no encoding has."""


def harmless(text: str) -> str:
    """A text that cannot move the cursor, change colours or turn what stands around it."""
    return _ACTING.sub(ESCAPED, text)


class Screened(io.TextIOBase):
    """A text stream whose every text is made harmless; what is beneath it is `below`.

    It has no `buffer`: bytes would pass by it.
    """

    def __init__(self, below: TextIO) -> None:
        self.below = below

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """Of the stream beneath."""
        return self.below.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the stream beneath writes what its encoding lacks."""
        return self.below.errors

    def write(self, text: str) -> int:
        """Write a text with a sign in the place of each character that would act."""
        self.below.write(harmless(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream beneath."""
        self.below.flush()

    def isatty(self) -> bool:
        """Whether the stream beneath is a terminal."""
        return self.below.isatty()

    def fileno(self) -> int:
        """Descriptor of the stream beneath."""
        return self.below.fileno()

    def writable(self) -> bool:
        """It is."""
        return True


def beneath(stream: Any) -> Any:
    """The stream that `Screened` ones, and those of rich's live displays, stand upon."""
    while (
        below := getattr(stream, "below", getattr(stream, "rich_proxied_file", None))
    ) is not None:
        stream = below
    return stream


def screen() -> None:
    """Put `Screened` streams over stdout and stderr, for whoever writes."""
    sys.stdout, sys.stderr = _screened(sys.stdout), _screened(sys.stderr)


@contextmanager
def screened() -> Iterator[None]:
    """Do what `screen` does, and give the streams back."""
    before = sys.stdout, sys.stderr
    screen()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _screened(stream: TextIO | None) -> TextIO:
    if stream is None or isinstance(stream, Screened):  # None: closed before the start (>&-)
        return cast(TextIO, stream)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # an ASCII terminal gets "?" for "θ"
    return cast(TextIO, Screened(stream))


def echo(text: object = "", *, err: bool = False, end: str = "\n", lasting: bool = False) -> None:
    """Print a text at once.

    Args:
        text: from wherever; it cannot do anything to the terminal.
        err: whether it goes to stderr.
        end: what follows it.
        lasting: whether a reader who has left is no reason to stop.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return
    try:
        stream.write(harmless(f"{text}{end}"))
        stream.flush()
    except BrokenPipeError:
        if not lasting:
            raise
        silence(stream)


def silence(stream: IO[str]) -> None:
    """Let a stream lead nowhere, since its reader has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def echo_json(value: Any, *, indent: int | None = None, lasting: bool = False) -> None:
    r"""Print a value as JSON that is the same once it is parsed; what would act is a `\uXXXX`.

    Args:
        value: what JSON holds; another object becomes its text.
        indent: as `json.dumps` has it.
        lasting: as in `echo`.

    Raises:
        UserError: a number is NaN or infinite.
    """
    encoding = (sys.stdout.encoding if sys.stdout is not None else None) or ""
    narrow = not encoding.lower().startswith("utf")
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=narrow, allow_nan=False, default=str)
    except ValueError:
        raise UserError("--json: a number is infinite or none (NaN), which JSON lacks") from None
    echo(_NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text), lasting=lasting)


def plain_table(title: str, notes: Sequence[str] = ()) -> Table:
    """An empty table as the command line prints them.

    Args:
        title: stands above it, on the left.
        notes: lines that stand beneath it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title,
        caption="\n".join(notes) or None,
        caption_justify="left",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
