"""The console that commands print on while they work."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class LastingConsole(Console):
    """A console whose reader may leave: what nobody reads is no reason to stop."""

    def on_broken_pipe(self) -> None:
        """Go on in silence, where rich would exit."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
