"""Existing checkpoints, the one that is used, and those that are removed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geomix.config.run import CheckpointConfig
from geomix.training.checkpoint import Position, save
from geomix.training.checkpoint_rotation import Saving, newest, steps_in, tidy


class Model(torch.nn.Linear):
    """The part of a model and a tokenizer that a checkpoint needs."""

    def save_pretrained(self, folder: Path, **_: Any) -> None:
        (folder / "config.json").write_text("{}")


@pytest.fixture(autouse=True)
def one_number_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of one number is none that could be loaded again."""
    monkeypatch.setattr("geomix.training.checkpoint.check_saved", lambda *_: None)


def make(stage: Path, name: str, at: Position) -> Path:
    """A checkpoint of one number."""
    model = Model(1, 1)
    loaded: Any = SimpleNamespace(model=model, tokenizer=model)
    path = stage / "checkpoints" / name
    save(path, loaded, {}, at)
    return path


def damage(path: Path) -> None:
    (path / "position.json").write_text(json.dumps({"stage": 7}))


def names(stage: Path) -> list[str]:
    return sorted(path.name for path in (stage / "checkpoints").iterdir())


def saving(folder: Path = Path(), last: float = 0.0, **keys: Any) -> Saving:
    return Saving(CheckpointConfig.model_validate(keys), folder, last)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_one_is_due_after_every_so_many_steps() -> None:
    due = saving(steps=3, minutes=None).due
    assert [step for step in range(1, 10) if due(step)] == [3, 6, 9]
    assert not any(saving(minutes=None).due(step) for step in range(1, 10))


def test_one_is_due_when_the_minutes_have_passed(tmp_path: Path, clock: list[float]) -> None:
    """Ten minutes from the stage's beginning unless it is said otherwise, then from the last."""
    stage = saving(tmp_path, clock[0])
    clock[0] += 599
    assert not stage.due(1)
    clock[0] += 1
    assert stage.due(2)
    stage.saved()
    assert not stage.due(3)
    clock[0] += 600
    assert stage.due(3)
    half = saving(tmp_path, clock[0], minutes=0.5, steps=7)
    clock[0] += 29
    assert half.due(7)
    assert not half.due(8)
    clock[0] += 1
    assert half.due(8)


def test_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    """Step 1,000,000 is newer than 999,999, though its name is not."""
    folder = tmp_path / "checkpoints"
    for step in (999_998, 999_999, 1_000_000):
        make(tmp_path, saving(folder).within(step).name, Position(0, 0, 0, step))
    (folder / "step-000001.damaged").mkdir()
    assert [path.name for path in steps_in(folder)] == [
        "step-1000000",
        "step-999999",
        "step-999998",
    ]
    saving(folder).saved()
    assert names(tmp_path) == ["step-000001.damaged", "step-1000000", "step-999999"]
    saving(folder, keep=1).saved()
    assert names(tmp_path) == ["step-000001.damaged", "step-1000000"]
    make(tmp_path, "final", Position(1))
    saving(folder).clear()
    assert names(tmp_path) == ["final", "step-000001.damaged"]


def test_the_newest_complete_one_is_taken_over_the_stages(tmp_path: Path) -> None:
    stages = [tmp_path / name for name in ("0-a", "1-b", "2-c")]
    assert newest(stages) == (None, [])
    make(stages[0], "step-000009", Position(0, 0, 9, 9))
    make(stages[0], "final", Position(1))
    found, skipped = newest(stages)
    assert found is not None
    assert (found.path, found.position, skipped) == (
        stages[0] / "checkpoints" / "final",
        Position(1),
        [],
    )
    for step in (2, 10):
        make(stages[1], f"step-{step:06d}", Position(1, 0, step, step))
    found, _ = newest(stages)
    assert found is not None
    assert found.position == Position(1, 0, 10, 10)


def test_damaged_ones_are_named_and_set_aside_newest_first(tmp_path: Path) -> None:
    stages = [tmp_path / "0-a", tmp_path / "1-b"]
    make(stages[0], "final", Position(1))
    for step in (3, 6, 9):
        made = make(stages[1], f"step-{step:06d}", Position(1, 0, step, step))
        if step > 3:
            damage(made)
    (stages[1] / "checkpoints" / "step-000009.damaged").mkdir()
    found, skipped = newest(stages)
    assert found is not None
    assert found.position.step == 3
    folder = stages[1] / "checkpoints"
    assert skipped == [f"{folder}/step-00000{n}: position.json is damaged" for n in (9, 6)]
    assert names(stages[1]) == [
        "step-000003",
        "step-000006.damaged",
        "step-000009.damaged",
        "step-000009.damaged-2",
    ]
    assert newest(stages) == (found, [])
    damage(folder / "step-000003")
    damage(stages[0] / "checkpoints" / "final")
    found, skipped = newest(stages)
    assert found is None
    assert [line.split(": ")[0] for line in skipped] == [
        str(folder / "step-000003"),
        str(stages[0] / "checkpoints" / "final"),
    ]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Half-written files and folders at any depth, and what an ended stage no longer needs."""
    ended, begun = tmp_path / "0-a", tmp_path / "1-b"
    for stage in (ended, begun):
        make(stage, "step-000003", Position(0, 0, 3, 3))
        partial = stage / "checkpoints" / "step-000006.partial"
        partial.mkdir()
        (partial / "position.json.partial").touch()
        (stage / "eval").mkdir()
        (stage / "eval" / "epoch-001.jsonl").touch()
        (stage / "eval" / "epoch-002.jsonl.partial").touch()
        (stage / "checkpoints" / "step-000001.damaged").mkdir()
    make(ended, "final", Position(1))
    tidy([ended, begun, tmp_path / "2-not-begun"])
    assert names(ended) == ["final", "step-000001.damaged"]
    assert names(begun) == ["step-000001.damaged", "step-000003"]
    for stage in (ended, begun):
        assert [path.name for path in (stage / "eval").iterdir()] == ["epoch-001.jsonl"]
