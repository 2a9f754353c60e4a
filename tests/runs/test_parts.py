"""Runs computed in several environments: reported before they resume, and stored with them."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.experiments.record_offline import record_run
from geomix.experiments.run import resume_experiment, run_experiment
from geomix.runs.directory import RunDirectory
from geomix.runs.parts import changes, keep_part, keep_recorded, mixture, parts_of
from geomix.util.environment import describe_environment
from geomix.util.errors import Interrupted, UserError

TEXT = """
model: {model}
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 3}}
record: null
"""
ARMS = "arms: {one: {}, two: {seed: 1}}\n"

HERE = describe_environment(torch.device("cpu"), 1)


class Silent:
    """A progress display of nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def begun(text: str, folder: Path, step: int | None = None) -> RunDirectory:
    """A run that is done, or that was asked to end after so many steps."""
    file = folder.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    steps = itertools.count(1)
    stop: Callable[[], bool] = bool if step is None else lambda: next(steps) >= step
    try:
        return run_experiment(load(file, sources=tuple(SOURCES)), folder, lambda _: Silent(), stop)
    except Interrupted:
        assert step is not None
        return RunDirectory(folder)


def gone_on(run: RunDirectory) -> list[str]:
    """Go on, with what is warned of."""
    told: list[str] = []
    resume_experiment(run.path, lambda _: Silent(), log=lambda _: None, warn=told.append)
    return told


def elsewhere(run: RunDirectory, *, old: bool = False, **conditions: Any) -> None:
    """Have a run's file say that its last part was computed in another environment."""
    parts = json.loads(run.environment_file.read_text())
    part = parts[-1] if isinstance(parts, list) else parts
    if old:
        del part["from"]  # as geomix wrote it when there was one part
    part["versions"].update(conditions.pop("versions", {}))
    part.update(conditions)
    run.environment_file.write_text(json.dumps(parts))


def test_a_run_that_stays_where_it_was_is_one_object(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(TEXT.format(model=tiny_model), tmp_path / "run", 2)
    assert gone_on(run) == []
    assert json.loads(run.environment_file.read_text()) == {
        "from": {"stage": 0, "step": 0},
        **HERE,
    }


def test_what_differs_is_said_in_one_line_and_kept(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(TEXT.format(model=tiny_model), tmp_path / "run", 2)
    elsewhere(run, old=True, versions={"numpy": "1.0"}, device="cuda:0", threads=99, processes=8)
    (line,) = gone_on(run)
    numpy = HERE["versions"]["numpy"]
    assert f"(numpy was 1.0, is {numpy}; device was cuda:0, is cpu; " in line
    assert f"threads was 99, is {HERE['threads']}; processes was 8, is 1)" in line
    first, second = parts_of(run)
    assert first["from"] == {"stage": 0, "step": 0}
    assert first["threads"] == 99
    assert second == {"from": {"stage": 0, "step": 2}, **HERE}


def test_each_arm_has_its_own_parts(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(
        TEXT.format(model=tiny_model) + ARMS, tmp_path / "run", 7
    )  # after 2 steps of the second
    one, two = run.arms
    for each in (run, two):
        elsewhere(each, python="2.7")
    lines = gone_on(run)
    assert [line.split(": ")[0] for line in lines] == [str(run.path)], "once for all"
    assert [part["from"] for part in parts_of(run)] == [
        {"arm": "one", "stage": 0, "step": 0},
        {"arm": "two", "stage": 0, "step": 2},
    ]
    assert [part["from"] for part in parts_of(one)] == [{"stage": 0, "step": 0}]
    assert [part["python"] for part in parts_of(two)] == ["2.7", HERE["python"]]


def test_a_part_that_is_done_again_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(TEXT.format(model=tiny_model), tmp_path / "run", 2)
    for threads, step in ((1, 0), (2, 3), (3, 5), (4, 3), (4, 6)):
        keep_part(run, {**HERE, "threads": threads}, {"stage": 0, "step": step})
    assert [(part["threads"], part["from"]["step"]) for part in parts_of(run)] == [(1, 0), (4, 3)]
    keep_part(run, {**HERE, "threads": 5}, {"stage": 0, "step": 0})
    assert json.loads(run.environment_file.read_text())["threads"] == 5


@pytest.mark.parametrize("damage", ["[1]", "{", '[{"from": 3}]', '{"versions": []}'])
def test_a_damaged_file_is_a_line(tmp_path: Path, damage: str) -> None:
    run = RunDirectory(tmp_path)
    run.environment_file.write_text(damage)
    with pytest.raises(UserError, match=r"env\.json: cannot be read"):
        parts_of(run)


def test_a_taken_stage_keeps_where_it_was_trained(tiny_model: Path, tmp_path: Path) -> None:
    """Through a run that took it itself."""
    text = TEXT.format(model=tiny_model)
    first = begun(text, tmp_path / "first")
    elsewhere(first, threads=99)
    told: list[str] = []
    for name, taken in (("second", "first"), ("third", "second")):
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("- data", f"- from: {tmp_path / taken}\n    data"))
        experiment = load(file, sources=tuple(SOURCES))
        run_experiment(experiment, tmp_path / name, lambda _: Silent(), warn=told.append)
        settled = json.loads((tmp_path / name / "elsewhere.json").read_text())
        (part,) = settled["taken"]["0"]["environment"]
        assert part["threads"] == 99
    assert len(told) == 2
    for line, donor in zip(told, ("first", "second"), strict=True):
        where = f"stages[0].from {tmp_path / donor}/stages/0-kvr: taken into a run in another"
        assert line.startswith(where)
        assert f"(threads was 99, is {HERE['threads']})" in line


def test_recording_afterwards_says_and_keeps_where_it_is(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(TEXT.format(model=tiny_model), tmp_path / "run")
    elsewhere(run, processes=2)
    told: list[str] = []
    record_run(run, ["boundaries"], ["record.probes=2"], told.append)
    assert told[0].startswith(f"{run.path}: recorded in another environment (processes was 2, is 1")
    names = [path.name for path in run.snapshots()]
    kept = run.path / "records" / "env.json"
    assert json.loads(kept.read_text()) == [{"snapshots": names, **HERE}]
    told.clear()
    record_run(run, ["boundaries"], ["record.probes=2"], told.append)
    assert [line.endswith("there already") for line in told] == [True, True], "nothing is made"


def test_a_snapshot_that_is_recorded_again_is_noted_once(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    other = {**HERE, "threads": 99}
    keep_recorded(file, HERE, ["a.h5", "b.h5"])
    keep_recorded(file, other, ["b.h5", "c.h5"])
    keep_recorded(file, HERE, ["c.h5"])
    parts = json.loads(file.read_text())
    assert [part["snapshots"] for part in parts] == [["a.h5", "c.h5"], ["b.h5"]]
    keep_recorded(file, HERE, ["b.h5"])
    assert json.loads(file.read_text()) == [{"snapshots": ["a.h5", "c.h5", "b.h5"], **HERE}]


def test_members_of_one_environment_need_no_line() -> None:
    assert mixture({"a": [HERE], "b": [HERE, HERE], "c": []}) is None
    line = mixture({"a": [HERE], "b": [HERE, {**HERE, "threads": 99}]})
    assert line is not None
    assert f"threads {HERE['threads']} (a, b), 99 (b)" in line


def test_what_one_environment_does_not_tell_is_no_difference() -> None:
    old = {key: value for key, value in HERE.items() if key != "cpu"}
    old["versions"] = {"torch": HERE["versions"]["torch"]}
    assert changes(old, HERE) == changes(HERE, old) == []


def test_a_run_without_the_file_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    run = begun(TEXT.format(model=tiny_model), tmp_path / "run", 2)
    run.environment_file.unlink()
    copy = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "copy")))
    assert gone_on(copy) == []
    assert [part["from"] for part in parts_of(copy)] == [{"stage": 0, "step": 2}]
