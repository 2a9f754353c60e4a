"""No file is ever incomplete under its final name."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geomix.measures.scores.base import Answer
from geomix.training.checkpoint import Position, save
from geomix.training.evaluate import evaluate
from geomix.training.optimiser import second_moments
from geomix.util.errors import UserError
from geomix.util.files import append_json_line, write_json, write_text, written_file, written_folder


def test_a_file_is_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    write_text(file, "one")
    write_text(file, "two é")
    assert file.read_text(encoding="utf-8") == "two é"
    assert list(file.parent.iterdir()) == [file]


def write_half(path: Path) -> None:
    path.write_text("half")
    raise IsADirectoryError


def test_a_failure_inside_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(IsADirectoryError), written_file(file) as partial:
        write_half(partial)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_inside_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), written_folder(tmp_path / "made") as partial:
        write_half(partial / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_replaced_but_its_leftover_is(tmp_path: Path) -> None:
    leftover = tmp_path / "made.partial"
    leftover.mkdir()
    (leftover / "stale").touch()
    with written_folder(tmp_path / "made") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "a").write_text("1")
    found = [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))]
    assert found == ["made", "made/deep", "made/deep/a"]
    with pytest.raises(FileExistsError), written_folder(tmp_path / "made"):
        pass
    assert (tmp_path / "made" / "deep" / "a").read_text() == "1"


def test_json_refuses_what_is_no_json_and_keeps_the_old(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"b": 1, "a": "é"})
    assert file.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    for bad in (float("nan"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            write_json(file, {"b": bad})
        with pytest.raises((ValueError, TypeError)):
            append_json_line(file, {"b": bad})
    assert json.loads(file.read_text(encoding="utf-8")) == {"b": 1, "a": "é"}


def test_lines_are_appended(tmp_path: Path) -> None:
    for value in ({"a": 1}, {"b": "x\ny\u2028"}):
        append_json_line(tmp_path / "a.jsonl", value)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"a": 1}, {"b": "x\ny\u2028"}]
    assert lines[-1] == ""


HALF_FILE = """
import pathlib, sys, time
from geomix.util.files import written_file, written_folder
file, folder = map(pathlib.Path, sys.argv[1:])
with written_file(file) as file, written_folder(folder) as folder:
    file.write_text("half")
    (folder / "a").write_text("half")
    print("halfway", flush=True)
    time.sleep(60)
"""


def test_a_kill_halfway_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    file, fresh = tmp_path / "a.txt", tmp_path / "folder"
    file.write_text("old")
    command = [sys.executable, "-c", HALF_FILE, str(file), str(fresh)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        writer.kill()
    assert file.read_text() == "old"
    assert not fresh.exists()
    assert all(path.name.endswith(".partial") for path in tmp_path.iterdir() if path != file)
    write_text(file, "new")
    with written_folder(fresh) as partial:
        (partial / "b").touch()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "b", "folder"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: a write ends short there, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_tears_no_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    append_json_line(file, {"a": 1})
    with pytest.raises(OSError, match=r"a\.jsonl") as raised, full_disk(20):
        append_json_line(file, {"b": "x" * 90})
    assert raised.value.errno == errno.ENOSPC
    assert file.read_text() == '{"a": 1}\n'


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(OSError, match="large") as raised, full_disk(20):
        write_text(file, "x" * 90)
    assert raised.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


class Model(torch.nn.Linear):
    """The part of a model that a checkpoint needs."""

    def save_pretrained(self, folder: Path, **_: Any) -> None:
        (folder / "config.json").write_text("{}")


def test_a_full_disk_stops_a_checkpoint_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "geomix.training.checkpoint.check_saved", lambda *_: None
    )  # no model at all
    model = Model(100, 100)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(100)).sum().backward()
    optimiser.step()
    loaded: Any = SimpleNamespace(model=model, tokenizer=model)
    with pytest.raises(UserError, match=r"final: the checkpoint cannot be") as raised:  # noqa: SIM117
        with full_disk(9000):
            save(tmp_path / "final", loaded, second_moments(loaded.model, optimiser), Position(0))
    assert len(raised.value.lines) == 1
    assert "\n" not in raised.value.lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nll", [float("nan"), float("inf")])
def test_verdicts_of_a_model_that_diverged_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nll: float
) -> None:
    answer = Answer(prompt="a", target="b", prediction="c", exact=False, nll=nll, tokens=2)
    monkeypatch.setattr("geomix.training.evaluate.score", lambda *_, **__: [answer])
    loaded: Any = SimpleNamespace(model=None)
    with pytest.raises(UserError, match=r"D_A: the loss is not finite; lower train\.lr"):
        evaluate(loaded, {"D_A": []}, "token", 4, tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
