"""The command line in this process, in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
