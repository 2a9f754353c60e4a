"""The one exception for a user's mistake, and the one for being asked to end."""

from __future__ import annotations


class UserError(Exception):
    """What was wrong, where, and what to do: one line a mistake.

    The command line prints the lines and exits with status 2; nothing else is printed, so each line
    must stand on its own: `my.yaml:14 stages[1].mix.ratoi: unknown key; did you mean 'ratio'?`
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Unreachable(UserError):  # noqa: N818 (a kind of mistake)
    """Data that cannot be had here: there is no network, or an optional corpus is not installed."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The process was asked to end; everything done is saved, and can be gone on with."""
