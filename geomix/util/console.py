"""Rich output for the terminal: keeps rich's colours and neutralises control characters in texts.

Every command draws on a `Console` of this module, and on a `Live` where something moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import IO, Any

import rich.console
import rich.live
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from geomix.util.terminal import beneath, harmless, screened, silence


class Console(rich.console.Console):
    """Console that neutralises control characters in texts before it styles them.

    It reads brackets and colons literally: no markup, no emoji. Options are those of rich.
    """

    def __init__(self, **options: Any) -> None:
        plain = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}
        super().__init__(**plain | options)

    @property
    def file(self) -> IO[str]:
        """The underlying stream: texts are already screened, and rich's colour codes must pass."""
        found: IO[str] = beneath(super().file)
        return found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        """Lay out a text as rich does, neutralised first, so that its width is known."""
        return super().render_str(harmless(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of any renderable, with each text neutralised."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


class LastingConsole(Console):
    """Console that keeps running when its reader closes the pipe."""

    def on_broken_pipe(self) -> None:
        """Fall silent, where rich would exit."""
        self.quiet = True
        silence(self.file)


class Live(rich.live.Live):
    """Live region; what others print meanwhile stands above it, screened as usual.

    rich redirects stdout and stderr to its console, and takes colours and links from what is
    written there.
    """

    _screens: ExitStack | None = None

    def start(self, refresh: bool = False) -> None:
        """Start drawing."""
        super().start(refresh)
        if self._screens is None:
            self._screens = ExitStack()
            self._screens.enter_context(screened())

    def stop(self) -> None:
        """Draw a last time and restore the streams."""
        if self._screens is not None:
            self._screens.close()
            self._screens = None
        super().stop()
