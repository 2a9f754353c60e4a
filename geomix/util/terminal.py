"""The one exit to the terminal: all output passes through here or `geomix.util.console`.

A text from outside (data, a model's files, a foreign run, a path, a library's warning) may hold
characters that set the clipboard, hide lines or reverse the surrounding text. `screened` wraps
stdout and stderr in a stream that replaces them, whoever writes; `echo` and `echo_json` are how
geomix itself writes. Rich emits control codes of its own: `geomix.util.console.Console` screens its
texts before they are styled. Data files keep a text as it is.
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
"""Replacement for a character that would control the terminal."""

_ACTING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters (C0, DEL, C1) except newline and tab, and those that change the direction of
all text up to a counterpart, which may never come."""

_NOT_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters of `_ACTING` that `json.dumps` leaves raw, and lone surrogates, which no encoding
has."""


def harmless(text: str) -> str:
    """Replace characters that move the cursor, change colours or reverse text."""
    return _ACTING.sub(ESCAPED, text)


class Screened(io.TextIOBase):
    """Text stream that neutralises every text; `below` is the underlying stream.

    It has no `buffer`, because bytes would bypass it.
    """

    def __init__(self, below: TextIO) -> None:
        self.below = below

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """Encoding of the underlying stream."""
        return self.below.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Error handler of the underlying stream for characters that its encoding lacks."""
        return self.below.errors

    def write(self, text: str) -> int:
        """Write a text, with each control character replaced."""
        self.below.write(harmless(text))
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self.below.flush()

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self.below.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the underlying stream."""
        return self.below.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True


def beneath(stream: Any) -> Any:
    """Return the stream beneath `Screened` ones and those of rich's live displays."""
    while (
        below := getattr(stream, "below", getattr(stream, "rich_proxied_file", None))
    ) is not None:
        stream = below
    return stream


def screen() -> None:
    """Wrap stdout and stderr in `Screened` streams, whoever writes."""
    sys.stdout, sys.stderr = _screened(sys.stdout), _screened(sys.stderr)


@contextmanager
def screened() -> Iterator[None]:
    """Screen stdout and stderr within the block, then restore them."""
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
    """Print a text immediately.

    Args:
        text: from any source; it cannot control the terminal.
        err: whether it goes to stderr.
        end: what follows it.
        lasting: whether to continue after the reader has left.
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
    """Redirect a stream to nowhere, since its reader has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def echo_json(value: Any, *, indent: int | None = None, lasting: bool = False) -> None:
    r"""Print a value as JSON that parses to the same value; control characters become `\uXXXX`.

    Args:
        value: any JSON value; another object becomes its text.
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
    """Return an empty table in the command line's style.

    Args:
        title: shown above it, on the left.
        notes: lines shown beneath it.
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
