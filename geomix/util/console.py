"""What rich draws on the terminal: its colours come out, what acts in a text does not.

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
    """A console whose texts are made harmless before they are styled.

    Brackets and colons in a text are that: no markup, no emoji. Options are those of rich.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False} | options)

    @property
    def file(self) -> IO[str]:
        """The stream itself: what comes here is screened, and its colours are rich's own."""
        found: IO[str] = beneath(super().file)
        return found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as rich lays it out; made harmless here, so that its width is known."""
        return super().render_str(harmless(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of whatever is printed, drawn by whomever, each text made harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


class LastingConsole(Console):
    """A console whose reader may leave: what nobody reads is no reason to stop."""

    def on_broken_pipe(self) -> None:
        """Go on in silence, where rich would exit."""
        self.quiet = True
        silence(self.file)


class Live(rich.live.Live):
    """A live region. What others print meanwhile stands above it, screened as it always is.

    rich redirects stdout and stderr to its console, and takes colours and links from what is
    written there.
    """

    _screens: ExitStack | None = None

    def start(self, refresh: bool = False) -> None:
        """Begin to draw."""
        super().start(refresh)
        if self._screens is None:
            self._screens = ExitStack()
            self._screens.enter_context(screened())

    def stop(self) -> None:
        """Draw a last time, and give the streams back."""
        if self._screens is not None:
            self._screens.close()
            self._screens = None
        super().stop()
