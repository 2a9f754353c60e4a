"""The real command line in forked processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        status: its exit status; of a killed one, minus the signal.
        out: what it printed.
        err: what it printed as errors.
        changes: what it did to files, one text each; none where it was killed.
    """

    status: int
    out: str
    err: str
    changes: list[str]


@dataclass(frozen=True)
class Geomix:
    """`geomix` with its libraries imported already.

    Attributes:
        server: the process that forks; see `forked.py`.
        folder: where commands start.
        model: a tiny GPT-2 with dropout.
    """

    server: subprocess.Popen[str]
    folder: Path
    model: Path

    def __call__(
        self,
        *arguments: str,
        at: list[tuple[str, int, int]] | None = None,
        after: float | None = None,
        limit: int | None = None,
        powerless: bool = False,
    ) -> Done:
        """Run a command to its end.

        Args:
            arguments: of the command line.
            at: (pattern, count, signal): sent before the count-th change to a file that it matches.
            after: seconds after which it is killed.
            limit: bytes that a file can have, as on a full disk.
            powerless: without the rights of root, who may write everywhere.
        """
        request: dict[str, Any] = {"folder": str(self.folder), "arguments": arguments}
        request |= {"at": at or [], "after": after, "limit": limit, "powerless": powerless}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Done(**json.loads(self.server.stdout.readline()))

    def tree(self, run: str) -> dict[str, str]:
        """Hash of every file of a run that the same run must have again, by its path.

        Left out is what tells of processes (status, lock, environment), and what was set aside.
        """
        found = {}
        for path in sorted((self.folder / run).rglob("*")):
            name = path.relative_to(self.folder / run).as_posix()
            told = path.name in {"status.json", "lock", "env.json"} or ".damaged" in name
            if path.is_file() and not told:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture(scope="module")
def geomix(tmp_path_factory: pytest.TempPathFactory, dropout_model: Path) -> Iterator[Geomix]:
    folder = tmp_path_factory.mktemp("killed")
    answers = tmp_path_factory.mktemp("answers")
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    script = Path(__file__).with_name("forked.py")
    command = [sys.executable, "-W", "ignore", str(script), str(dropout_model), str(answers)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **fixed, "TOKENIZERS_PARALLELISM": "false"},
    ) as server:
        yield Geomix(server, folder, dropout_model)
        assert server.stdin is not None
        server.stdin.close()
