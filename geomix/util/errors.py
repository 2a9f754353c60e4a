"""Exceptions for a user's mistakes, for several mistakes at once, and for a request to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A user's mistakes: what is wrong, where, and what to do, one line each.

    The command line prints the lines and exits with status 2; nothing else is printed, so each line
    must stand on its own: `my.yaml:14 stages[1].mix.ratoi: unknown key; did you mean 'ratio'?`
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class OfKey(UserError):  # noqa: N818 (a kind of mistake)
    """A mistake in the value of a data source's key; the caller adds where the key is written.

    Args:
        key: within the source's own part of the configuration: `("columns", "prompt")`.
        text: what is wrong.
        otherwise: appended to the text where there is no configuration.
    """

    def __init__(self, key: tuple[str, ...], text: str, otherwise: str = "") -> None:
        super().__init__(text + otherwise)
        self.key, self.text = key, text


class Gathered:
    """Mistakes collected in several places, reported together, each once."""

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    @contextmanager
    def each(self) -> Iterator[None]:
        """Collect the mistake that ends the block."""
        try:
            yield
        except UserError as error:
            self.lines.update(dict.fromkeys(error.lines))

    def check(self) -> None:
        """Report the collected mistakes.

        Raises:
            UserError: there are any.
        """
        if self.lines:
            raise UserError(*self.lines)


class Unreachable(UserError):  # noqa: N818 (a kind of mistake)
    """Data that cannot be fetched: there is no network, or an optional corpus is not installed."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """A request to end the process; everything done is saved, and the run can be resumed."""


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Convert whatever a library raises on foreign input into one line.

    A panic of a library written in Rust (tokenizers, safetensors) is no `Exception`, so that it
    passes every handler of those. Interrupts and a user's own mistakes pass unchanged.

    Args:
        where: what the library was given, for the line.

    Raises:
        UserError: the library failed.
    """
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        raise UserError(f"{where}: {first_line(error)}") from None


def is_failure(error: BaseException) -> bool:
    """Return whether an exception is a library's failure: no interrupt, and no `UserError`."""
    passing = (KeyboardInterrupt, SystemExit, GeneratorExit, UserError, Interrupted)
    return not isinstance(error, passing)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, else the error's type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
