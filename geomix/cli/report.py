"""Reports of a command on its run: to people (`geomix.cli.progress`), scripts, and programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from geomix.training.engine import Progress
from geomix.util.errors import Interrupted
from geomix.util.terminal import echo, echo_json


class Report(Protocol):
    """Receiver of a command's reports on its run."""

    def begin(self, folder: Path) -> None:
        """Report that the run's folder exists."""

    def arm(self, name: str) -> Progress:
        """Return the display of an arm that starts; "" is a run without arms."""

    def log(self, line: str) -> None:
        """Report something worth knowing."""

    def warn(self, line: str) -> None:
        """Report something that failed without stopping the run."""


class Silent:
    """A `Progress` that shows nothing."""

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Do nothing."""

    def logged(self, line: Mapping[str, Any]) -> None:
        """Do nothing."""


class Nothing:
    """The `Report` of processes that do not print."""

    def begin(self, folder: Path) -> None:
        """Do nothing."""

    def arm(self, name: str) -> Progress:  # noqa: ARG002
        """Return a display that shows nothing."""
        return Silent()

    def log(self, line: str) -> None:
        """Do nothing."""

    def warn(self, line: str) -> None:
        """Do nothing."""


class Quiet(Nothing):
    """The `Report` for scripts: the run's folder on stdout, failures on stderr."""

    def begin(self, folder: Path) -> None:
        """Print the folder."""
        echo(folder, lasting=True)

    def warn(self, line: str) -> None:
        """Print the line on stderr."""
        echo(line, err=True, lasting=True)


class JsonLines(Silent):
    """The `Report` for programs: stdout holds the lines of `metrics.jsonl` as they are written.

    They are preceded by `{"event": "run", "path": …}`, those of an arm by `{"event": "arm", …}`,
    and followed by `{"event": "end", "state": …}`. Everything else goes to stderr.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None

    def begin(self, folder: Path) -> None:
        """Print the folder."""
        self.folder = folder
        echo_json({"event": "run", "path": str(folder)}, lasting=True)

    def arm(self, name: str) -> Progress:
        """Print the arm whose lines follow."""
        if name:
            path = f"{self.folder}/arms/{name}"
            echo_json({"event": "arm", "name": name, "path": path}, lasting=True)
        return self

    def logged(self, line: Mapping[str, Any]) -> None:
        """Print the line as it is in the file."""
        echo_json(line, lasting=True)

    def log(self, line: str) -> None:
        """Print the line on stderr."""
        echo(line, err=True, lasting=True)

    warn = log

    def end(self, state: str) -> None:
        """Print the last line, if there was a first one."""
        if self.folder is not None:
            echo_json({"event": "end", "state": state}, lasting=True)


@contextmanager
def json_lines() -> Iterator[JsonLines]:
    """Provide `JsonLines`, with a last line however the run ends."""
    report = JsonLines()
    try:
        yield report
    except BaseException as error:
        asked = isinstance(error, (Interrupted, KeyboardInterrupt))
        report.end("interrupted" if asked else "failed")
        raise
    report.end("done")
