"""A run on disk: its locks, and how it is found again."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geomix.api import Run, open_run
from geomix.config.load import load
from geomix.config.run import RunConfig
from geomix.experiments.run import check_free
from geomix.runs.configs import differences
from geomix.runs.directory import newest_run
from geomix.util.errors import UserError

CONFIG = '"config": {"seed": 0, "stages": []}}'

HOLD = """
import pathlib, sys, time
from geomix.api import Run
run = Run(pathlib.Path(sys.argv[1]))
with run.locked():
    run.set_status("running", stage=1)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[None]:
    """Another process holds the run; it is killed at the end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.kill()


def make(folder: Path, text: str = "{}") -> Run:
    folder.mkdir(parents=True)
    run = Run(folder)
    run.resolved_file.write_text(text)
    return run


def test_one_process_writes_and_its_death_shows(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with held_elsewhere(run.path):
        assert run.is_locked()
        assert run.status()["state"] == "running"
        with pytest.raises(UserError, match="another process is writing"), run.locked():
            pass
    assert not run.is_locked()
    status = run.status()
    assert status["state"] == "interrupted"
    assert status["stage"] == 1
    with run.locked():
        assert run.is_locked()
        run.set_status("running")
        assert run.status()["state"] == "running"
    run.set_status("done")
    assert run.status()["state"] == "done"


def test_the_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RuntimeError), run.locked():
        raise RuntimeError
    assert not run.is_locked()


def test_the_newest_run_is_the_one_started_last(tmp_path: Path) -> None:
    for name, time in (("z", 100), ("a", 300), ("m", 200)):
        os.utime(make(tmp_path / name).resolved_file, (time, time))
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "file").touch()
    assert newest_run(tmp_path).name == "a"


def test_no_run_at_all_is_one_line(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="no run here; `geomix train` makes one"):
            newest_run(root)


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, says in (("none", "no such folder"), ("file", "a file"), (".", "not a run")):
        with pytest.raises(UserError, match=says) as raised:
            open_run(tmp_path / name)
        assert len(raised.value.lines) == 1


def test_what_is_close_to_a_run_or_a_file_is_named(tmp_path: Path) -> None:
    first = make(tmp_path / "first")
    (tmp_path / "frist.csv").touch()
    (tmp_path / "my.yaml").touch()
    with pytest.raises(UserError, match=f"no such folder; did you mean '{first.path}'"):
        open_run(tmp_path / "frist")
    with pytest.raises(UserError, match=r"frist\.csv: a file; give the folder of a run"):
        open_run(tmp_path / "frist.csv")
    with pytest.raises(UserError, match=r"my2\.yaml: no such file; did you mean '.*my\.yaml'\?"):
        load(tmp_path / "my2.yaml")
    with pytest.raises(UserError, match=f"go on with it: --resume {first.path}"):
        check_free(first.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match=r"not there yet$"):
        check_free(tmp_path / "full")


def test_what_differs_is_told_once() -> None:
    stages: list[dict[str, Any]] = [{"data": "kvr", "train": {"lr": 0.1}} for _ in range(2)]
    one = RunConfig.model_validate({"stages": stages, "train": {"lr": 0.1}})
    for stage in stages:
        stage["train"] = {"lr": 0.2}
    other = RunConfig.model_validate({"stages": stages, "train": {"lr": 0.2}})
    run = Run(Path("r"))
    assert differences(run, {"a": one, "b": one}, {"a": other, "b": other}) == [
        "r: arm a, train.lr was 0.1, is 0.2"
    ]
    assert differences(run, {"a": one}, {"a": one, "b": one}) == [
        "r: the configuration has arm b, the run has not"
    ]
    assert differences(run, {"": one}, {"a": one}) == [
        "r: the run has no arms, the configuration has",
        "r: the configuration has arm a, the run has not",
    ]


def test_a_folder_whose_name_is_no_text_is_one_line(tmp_path: Path) -> None:
    """HDF5 and JSON could not name it in a result, which shows after all is computed."""
    run = make(tmp_path / "\udcffraw")
    with pytest.raises(UserError, match="a name that is not UTF-8; rename the folder") as raised:
        open_run(run.path)
    assert len(raised.value.lines) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "\udcff", "[" * 100000])
def test_a_broken_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    run = make(tmp_path / "run")
    run.resolved_file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"resolved\.json: cannot be read") as raised:
        open_run(run.path).resolved()
    assert len(raised.value.lines) == 1


def test_arms_and_snapshots_are_in_order(tmp_path: Path) -> None:
    run = make(tmp_path / "run", '{"arms": ["z", "a"], ' + CONFIG)
    assert [arm.path for arm in run.arms] == [run.path / "arms" / "z", run.path / "arms" / "a"]
    alone = make(tmp_path / "alone", '{"arms": null, ' + CONFIG)
    assert alone.arms == [alone]
    alone.snapshot_folder.mkdir(parents=True)
    names = [f"stage{s}-step{n:06d}.h5" for s, n in ((0, 0), (0, 9), (0, 10), (1, 2))]
    for name in (*reversed(names), "stage0-step000011.h5.partial"):
        (alone.snapshot_folder / name).touch()
    assert [path.name for path in alone.snapshots()] == names


@pytest.mark.parametrize(
    "name",
    [
        "stage01-step000004.h5",
        "stage0-step4.h5",
        "stage0-step0000004.h5",
        "stage٣-step000004.h5",
        "stage0-step٠٠٠٠٠٤.h5",
        f"stage0-step{'9' * 150}.h5",
        "stage0-step000004.h5.partial",
    ],
)
def test_only_names_that_geomix_writes_are_snapshots(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "run", '{"arms": null, ' + CONFIG)
    run.snapshot_folder.mkdir(parents=True)
    (run.snapshot_folder / name).touch()
    assert not run.snapshots()
    assert not run.records.snapshots
    (run.snapshot_folder / "stage0-step000004.h5").touch()
    assert [place.step for place in run.records.snapshots] == [4]


def test_metrics_of_a_run_that_has_none(tmp_path: Path) -> None:
    assert list(Run(tmp_path).metrics()) == []


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"config": []},
        {"config": {"seed": 0}},
        {"config": {"seed": 0, "stages": [1]}},
        {"config": {"seed": "x", "stages": []}},
        {"config": {"seed": 0, "stages": []}, "arms": "plain"},
        {"config": {"seed": 0, "stages": []}, "arms": [1]},
    ],
)
def test_a_manifest_that_lacks_something_is_one_line(tmp_path: Path, value: Any) -> None:
    run = make(tmp_path / "run", json.dumps(value))
    with pytest.raises(UserError, match=r"resolved\.json: cannot be read \(it lacks") as raised:
        _ = run.arms
    assert len(raised.value.lines) == 1


@pytest.mark.parametrize("value", [{}, {"state": 3}, {"state": "done", "stage": "x"}])
def test_a_status_that_lacks_something_is_one_line(tmp_path: Path, value: Any) -> None:
    run = Run(tmp_path)
    run.status_file.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"status\.json: cannot be read \(it lacks"):
        run.status()


def test_readers_neither_meet_nor_stop_a_writer(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert not run.is_locked()
        letting_go = threading.Timer(0.1, lambda: fcntl.flock(reader, fcntl.LOCK_UN))
        letting_go.start()
        with run.locked():
            assert run.is_locked()
        letting_go.join()


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for rest in (b"", b'{"b', b'{"b": 2}'):
        run.metrics_file.write_bytes(b'{"a": 1}\n' + rest)
        assert list(run.metrics()) == [{"a": 1}]


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[]", b"3", b"[" * 100000])
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: cannot be read") as raised:
        list(run.metrics())
    assert len(raised.value.lines) == 1


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for file, read in (
        (run.metrics_file, lambda: list(run.metrics())),
        (run.resolved_file, run.resolved),
        (run.status_file, run.status),
    ):
        os.mkfifo(file)
        with pytest.raises(UserError, match=rf"{file.name}: cannot be read \(not an ordinary file"):
            read()
