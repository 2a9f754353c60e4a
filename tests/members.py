"""Members of a sweep that are trained in the process of the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from geomix.cli import main


def train_members_here(patch: pytest.MonkeyPatch) -> None:
    """Let `geomix sweep` train its members in this process.

    Processes of their own add nothing but imports; that members are such processes is seen where
    one of them is asked to end.
    """
    known = {"DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
    patch.setattr("geomix.studies.local.subprocess", SimpleNamespace(Popen=TrainedHere, **known))


class TrainedHere:
    """In place of `subprocess.Popen`: done once it is started."""

    def __init__(self, line: Sequence[str], *, stdout: int, **_: object) -> None:
        done = CliRunner().invoke(main, line[line.index("train") :])
        os.write(stdout, done.output.encode())
        self.status = done.exit_code

    def poll(self) -> int:
        return self.status

    def kill(self) -> None:
        raise AssertionError("it has ended")

    terminate = wait = kill
