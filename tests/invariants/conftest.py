"""The command line, in this process on an empty desk and in forked processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from geomix.cli import main


@dataclass(frozen=True)
class Desk:
    """A folder in which geomix is started, and what it must do there with a mistake.

    Attributes:
        folder: the working directory.
        model: folder of a tiny model.
    """

    folder: Path
    model: Path

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def train(self, config: str | bytes, *arguments: str) -> list[str]:
        """Arguments that train a configuration."""
        self.write("run.yaml", config)
        return ["train", "run.yaml", "--out", "made", "--set", f"model={self.model}", *arguments]

    def run(self, arguments: Sequence[str]) -> Result:
        return CliRunner().invoke(main, arguments)

    def refuses(self, arguments: Sequence[str], *says: str) -> None:
        """One line on stderr for each of `says`, in order; status 2, and no file made."""
        before = sorted(self.folder.rglob("*"))
        result = self.run(arguments)
        assert isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == 2, result.output
        lines = result.stderr.splitlines()
        assert len(lines) == len(says), result.stderr
        for line, part in zip(lines, says, strict=True):
            assert line.startswith("geomix: ")
            assert part in line
            assert len(line) <= 620
            assert line.isprintable()
            assert "Traceback" not in line
            assert "Error: " not in line.split("chat template")[0]
        assert not result.stdout.strip() or result.stdout.strip().endswith("→ made")
        assert sorted(self.folder.rglob("*")) == before


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An empty desk; no network, and a cache of verdicts elsewhere."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("GEOMIX_CACHE", str(tmp_path / "cache"))
    return Desk(folder, tiny_model)


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
        torn: tuple[str, int, int] | None = None,
        after: float | None = None,
        limit: int | None = None,
        powerless: bool = False,
    ) -> Done:
        """Run a command to its end.

        Args:
            arguments: of the command line.
            at: (pattern, count, signal): sent before the count-th change to a file that it matches.
            torn: (pattern, count, bytes): from the count-th such change on it is killed in the
                middle of the first file that it makes longer than so many bytes.
            after: seconds after which it is killed.
            limit: bytes that a file can have, as on a full disk.
            powerless: without the rights of root, who may write everywhere.
        """
        how = {"torn": torn, "after": after, "limit": limit, "powerless": powerless}
        (done,) = self._ask(arguments, at=at or [], **how)
        return done

    def together(
        self, *arguments: str, at: list[tuple[str, int, int]] | None = None, victim: int = 0
    ) -> list[Done]:
        """Run a command in two processes, started as a launcher would; how each ended, by rank.

        What becomes of one when the other has gone is its own affair: nothing ends it.

        Args:
            arguments: of the command line.
            at: as above, for process 0.
            victim: the process that is then sent the signal.
        """
        return self._ask(arguments, at=at or [], processes=2, victim=victim)

    def _ask(self, arguments: tuple[str, ...], **how: Any) -> list[Done]:
        request = {"folder": str(self.folder), "arguments": arguments, **how}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return [Done(**answer) for answer in json.loads(self.server.stdout.readline())]

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


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory, dropout_model: Path) -> Path:
    """A cache of the hub's client that holds one fetched model, `nobody/dropout`."""
    cache = tmp_path_factory.mktemp("hub")
    folder, commit = cache / "models--nobody--dropout", "0" * 40
    shutil.copytree(dropout_model, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    return cache


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, dropout_model: Path, hub_cache: Path
) -> Iterator[subprocess.Popen[str]]:
    """One process for all that is forked: the libraries are imported once in a session."""
    answers = tmp_path_factory.mktemp("answers")
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    fixed |= {"HF_HUB_CACHE": str(hub_cache), "TOKENIZERS_PARALLELISM": "false"}
    fixed["PYTHONHASHSEED"] = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"  # its own
    script = Path(__file__).with_name("forked.py")
    command = [sys.executable, "-W", "ignore", str(script), str(dropout_model), str(answers)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **fixed},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def geomix(
    tmp_path_factory: pytest.TempPathFactory, server: subprocess.Popen[str], dropout_model: Path
) -> Geomix:
    """The command line in a folder of the test module's own."""
    return Geomix(server, tmp_path_factory.mktemp("killed"), dropout_model)


TALLY: Counter[str] = Counter()
"""Counts of what runs were put through in this session, and of those that ended otherwise."""


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many kills there were, and how many of them lost anything."""
    if TALLY:
        counts = [f"{number} {what}" for what, number in TALLY.items() if what != "losses"]
        terminalreporter.write_line(f"{', '.join(counts)}: {TALLY['losses']} losses")
