"""Broken configurations: every mistake at once, in the file's order, before torch is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BROKEN = Path(__file__).with_name("broken.yaml")
MARK = "#! "

HEAVY = ["torch", "transformers", "datasets", "nnsight", "matplotlib", "h5py"]

# Each configuration in one process after the other: what a command imports, the next one keeps.
REFUSED = """
import json, sys
from click.testing import CliRunner
from geomix.cli import main
heavy, files, more = map(json.loads, sys.argv[1:])
found = {}
for file in files:
    result = CliRunner().invoke(main, ["train", file, *more])
    loaded = [name for name in heavy if name in sys.modules]
    found[file] = [result.exit_code, result.stderr, result.stdout, loaded]
print(json.dumps(found))
"""


def broken() -> dict[str, str]:
    """The configurations by their titles."""
    parts = re.split(r"^--- # (.*)\n", BROKEN.read_text(encoding="utf-8"), flags=re.MULTILINE)
    titles, texts = parts[1::2], parts[2::2]
    assert len(set(titles)) == len(titles)
    return dict(zip(titles, texts, strict=True))


def expected(text: str) -> list[tuple[int, str]]:
    """Number and text of what must be said, line by line."""
    return [
        (number, told.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for told in line.split(MARK)[1:]
    ]


def refused(
    folder: Path, files: list[str], *more: str
) -> dict[str, tuple[int, str, str, list[str]]]:
    """Exit status, errors, output and heavy modules after `geomix train FILE`, by file."""
    arguments = [json.dumps(part) for part in (HEAVY, files, more)]
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, tuple[int, str, str, list[str]]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, list[str]]]:
    folder = tmp_path_factory.mktemp("broken")
    names = {title: f"{number}.yaml" for number, title in enumerate(broken())}
    for title, text in broken().items():
        (folder / names[title]).write_text(text, encoding="utf-8")
    found = refused(folder, list(names.values()))
    assert sorted(path.name for path in folder.iterdir()) == sorted(names.values())
    return {title: found[name] for title, name in names.items()}


def test_there_are_sixty_with_several_mistakes_each() -> None:
    assert len(broken()) >= 60
    assert [title for title, text in broken().items() if len(expected(text)) < 2] == []


@pytest.mark.parametrize("title", broken())
def test_every_mistake_is_told_at_once(
    answers: dict[str, tuple[int, str, str, list[str]]], title: str
) -> None:
    status, errors, output, heavy = answers[title]
    assert status == 2
    assert not output
    assert heavy == []
    told = [re.fullmatch(r"geomix: \d+\.yaml:(\d+) (.*)", line) for line in errors.splitlines()]
    found = [(int(match[1]), match[2]) for match in told if match]
    assert len(found) == len(told), errors
    wanted = expected(broken()[title])
    assert [line for line, _ in found] == [line for line, _ in wanted], errors
    for (_, says), (_, part) in zip(found, wanted, strict=True):
        assert says.startswith(part), f"{part!r} is not what is said: {says!r}"


def test_mistaken_overrides_are_told_with_the_files_own_mistakes(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("stages: [{data: kvrr}]\nmodle: x\n")
    more = ["--set", "seed", "--set", "stages.3.data=kvr", "--set", "train.lr=yes"]
    status, errors, _, heavy = refused(tmp_path, ["x.yaml"], *more)["x.yaml"]
    assert (status, heavy) == (2, [])
    assert [line.split(": ")[1] for line in errors.splitlines()] == [
        "x.yaml:1 stages[0].data.source",
        "x.yaml:2 modle",
        "--set seed",
        "--set stages.3.data=kvr",
        "--set train.lr=yes",
    ]


def test_the_heavy_libraries_have_those_names() -> None:
    assert all(find_spec(name) for name in HEAVY)


@pytest.mark.slow
def test_the_heavy_libraries_would_be_noticed(tmp_path: Path) -> None:
    """A configuration without mistakes goes on to where they are needed."""
    (tmp_path / "x.yaml").write_text("stages: [{data: none.jsonl}]\n")
    status, errors, _, heavy = refused(tmp_path, ["x.yaml"])["x.yaml"]
    assert status == 2
    assert "none.jsonl: no such file" in errors
    assert "torch" in heavy
