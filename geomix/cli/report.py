"""How a command tells of its run: to people (`geomix.cli.progress`), to scripts, to programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from geomix.training.engine import Progress
from geomix.util.errors import Interrupted
from geomix.util.terminal import echo, echo_json


class Report(Protocol):
    """How a whole command tells of its run."""

    def begin(self, folder: Path) -> None:
        """The run's folder is there."""

    def arm(self, name: str) -> Progress:
        """An arm begins; "" is a run without arms."""

    def say(self, line: str) -> None:
        """Something worth knowing."""

    def warn(self, line: str) -> None:
        """Something that did not work, and did not stop the run."""


class Silent:
    """A `Progress` that shows nothing."""

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:
        """Nothing."""

    def logged(self, line: Mapping[str, Any]) -> None:
        """Nothing."""


class Nothing:
    """The `Report` of a process beside the one that speaks."""

    def begin(self, folder: Path) -> None:
        """Nothing."""

    def arm(self, name: str) -> Progress:  # noqa: ARG002
        """Shows nothing."""
        return Silent()

    def say(self, line: str) -> None:
        """Nothing."""

    def warn(self, line: str) -> None:
        """Nothing."""


class Quiet(Nothing):
    """The `Report` of scripts: the run's folder on stdout, what did not work on stderr."""

    def begin(self, folder: Path) -> None:
        """Name the folder."""
        echo(folder, lasting=True)

    def warn(self, line: str) -> None:
        """Print it on stderr."""
        echo(line, err=True, lasting=True)


class JsonLines(Silent):
    """The `Report` of programs: stdout holds the lines of `metrics.jsonl` as they are written.

    Before them stands `{"event": "run", "path": …}`, before those of an arm `{"event": "arm", …}`,
    and at the end `{"event": "end", "state": …}`. Everything else goes to stderr.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None

    def begin(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder
        echo_json({"event": "run", "path": str(folder)}, lasting=True)

    def arm(self, name: str) -> Progress:
        """Name the arm whose lines follow."""
        if name:
            path = f"{self.folder}/arms/{name}"
            echo_json({"event": "arm", "name": name, "path": path}, lasting=True)
        return self

    def logged(self, line: Mapping[str, Any]) -> None:
        """Print it as it stands in the file."""
        echo_json(line, lasting=True)

    def say(self, line: str) -> None:
        """Print it on stderr."""
        echo(line, err=True, lasting=True)

    warn = say

    def end(self, state: str) -> None:
        """The last line, if there was a first one."""
        if self.folder is not None:
            echo_json({"event": "end", "state": state}, lasting=True)


@contextmanager
def json_lines() -> Iterator[JsonLines]:
    """`JsonLines`, with a last line however the run ends."""
    report = JsonLines()
    try:
        yield report
    except BaseException as error:
        asked = isinstance(error, (Interrupted, KeyboardInterrupt))
        report.end("interrupted" if asked else "failed")
        raise
    report.end("done")
