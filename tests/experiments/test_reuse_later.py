"""Reused results stay with a run: it resumes without the other runs, and rejects misfits."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.experiments.run import resume_experiment, run_experiment
from geomix.models.distributed import workers_here
from geomix.runs.directory import RunDirectory
from geomix.training.checkpoint import check
from geomix.util.errors import Interrupted, UserError

BASE = """
model: {model}
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 3}}
record: null
"""
LIKE = BASE.replace("epochs: 3", "steps_of: {other}")
TAKEN = BASE.replace("- data", "- from: {other}\n    data") + "# {more}\n"
TAKEN = TAKEN.replace(
    "record",
    "  - data: {{source: arithmetic, limit: 8}}\n    stop: {{epochs: 3}}\nrecord",
)


class Silent:
    """A progress display of nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def run(text: str, folder: Path, stop: Callable[[], bool] = bool) -> RunDirectory:
    file = folder.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    experiment = load(file, sources=tuple(SOURCES))
    return run_experiment(experiment, folder, lambda _: Silent(), stop)


def interrupted(text: str, folder: Path, step: int) -> RunDirectory:
    """A run that was asked to end after so many steps."""
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        run(text, folder, lambda: next(steps) >= step)
    return RunDirectory(folder)


@pytest.fixture
def other(tmp_path: Path, tiny_model: Path) -> RunDirectory:
    return run(BASE.format(model=tiny_model), tmp_path / "other")


def final(of: RunDirectory, stage: str) -> dict[str, torch.Tensor]:
    return dict(load_file(of.path / "stages" / stage / "checkpoints/final/model.safetensors"))


def goes_on(of: RunDirectory) -> RunDirectory:
    return resume_experiment(of.path, lambda _: Silent(), log=lambda _: None)


@pytest.mark.parametrize("change", ["removed", "retrained"])
def test_a_run_keeps_the_steps_that_it_began_with(
    other: RunDirectory, tiny_model: Path, tmp_path: Path, change: str
) -> None:
    text = LIKE.format(model=tiny_model, other=other.path)
    whole = run(text, tmp_path / "whole")
    half = interrupted(text, tmp_path / "half", 2)
    shutil.rmtree(other.path)
    if change == "retrained":
        run(BASE.format(model=tiny_model).replace("epochs: 3", "epochs: 1"), other.path)
    assert goes_on(half).steps_done() == whole.steps_done() == {0: 6}
    mine, theirs = final(half, "0-kvr"), final(whole, "0-kvr")
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("change", ["removed", "damaged"])
def test_a_stage_that_was_taken_is_the_runs_own(
    other: RunDirectory, tiny_model: Path, tmp_path: Path, change: str
) -> None:
    text = TAKEN.format(model=tiny_model, other=other.path, more="")
    whole = run(text, tmp_path / "whole")
    half = interrupted(text, tmp_path / "half", 2)
    if change == "removed":
        shutil.rmtree(other.path)
    else:
        for file in other.path.rglob("model.safetensors"):
            file.unlink()
            file.write_bytes(b"x")
    goes_on(half)
    for stage in ("0-kvr", "1-arithmetic"):
        mine, theirs = final(half, stage), final(whole, stage)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_manifest_that_names_files_elsewhere_is_refused(
    other: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    manifest = other.path / "stages/0-kvr/checkpoints/final/manifest.json"
    outside = tmp_path / "outside.txt"
    outside.write_text("x")
    named = json.loads(manifest.read_text())
    for name in ("../../../../../outside.txt", str(outside)):
        manifest.write_text(json.dumps({**named, name: "0" * 64}))
        with pytest.raises(UserError, match="final: not as geomix writes a checkpoint"):
            check(manifest.parent)
        with pytest.raises(UserError):
            run(TAKEN.format(model=tiny_model, other=other.path, more=""), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_stage_of_another_model_is_refused_before_a_folder_is_made(
    other: RunDirectory, tiny_model: Path, dropout_model: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    shutil.copytree(tiny_model, renamed)
    file = renamed / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    (one, first), (two, second) = list(words.items())[40:42]
    words[one], words[two] = second, first
    file.write_text(json.dumps(content), encoding="utf-8")
    for model, says in ((dropout_model, "whose model_type is"), (renamed, "another tokenizer")):
        text = TAKEN.format(model=model, other=other.path, more="")
        with pytest.raises(UserError, match=rf"stages\[0\]\.from .*{says}") as raised:
            run(text, tmp_path / "second")
        assert len(raised.value.lines) == 1
    assert not (tmp_path / "second").exists()


def test_a_folder_that_another_process_began_is_left_alone(
    other: RunDirectory, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_bytes() for file in other.path.rglob("*") if file.is_file()}
    monkeypatch.setattr("geomix.experiments.run.check_free", lambda _: None)  # it was free then
    with pytest.raises(UserError, match="not empty; name a folder that is not there yet"):
        run(BASE.format(model=tiny_model).replace("1e-2", "2e-2"), other.path)
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE is 'x'"),
        ({"WORLD_SIZE": "1.5"}, r"WORLD_SIZE is '1\.5'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2", "RANK": "y"}, "RANK is 'y'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set; start several"),
        (
            {"WORLD_SIZE": "2", "RANK": "7", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK is 7",
        ),
    ],
)
def test_variables_that_no_launcher_sets_are_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says) as raised:
        workers_here("ddp")
    assert len(raised.value.lines) == 1


@pytest.mark.parametrize("variables", [{}, {"RANK": "x"}, {"RANK": "1", "WORLD_SIZE": ""}])
def test_what_something_else_left_behind_is_one_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (workers_here("ddp").rank, workers_here("ddp").world) == (0, 1)
