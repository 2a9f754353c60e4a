"""Going on with a run through the real command line: signals, damage, refusals, arms."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.api import Run
from geomix.snapshots.file import read_snapshot

RUN = """stages:
  - data: {source: facts.jsonl, limit: 4}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 4}
    replay: 0.5
    stop: {epochs: 3}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, 3], probes: 3}
checkpoint: {steps: 2}
evaluate: {sets: {known: {source: known.jsonl, limit: 2}}}
"""
"""3 steps × 2 epochs, then 2 × 3."""

ARMS = (
    RUN.replace("epochs: 2", "epochs: 1").replace("epochs: 3", "epochs: 1")
    + """arms:
  mixed: {}
  plain: {stages.0.mix: null, stages.0.stop.epochs: 2}
"""
)
PATH = RUN.replace("at: [boundaries, 3]", "preset: path")
PATH = PATH.replace("train: {", "train: {update_shares: true, ").replace("{steps: 2}", "{steps: 3}")
PATH = PATH.replace("epochs: 2", "steps: 5", 1).replace("epochs: 3", "steps: 1", 1)
METRICS = r"write \S+/metrics\.jsonl"
FIRST, SECOND = "stages/0-facts/checkpoints", "stages/1-arithmetic/checkpoints"


def line_of(run: Run, stage: int, step: int) -> int:
    """The number, from 1, of a step's line among the metrics of a run."""
    lines = enumerate(run.metrics(), 1)
    (found,) = (n for n, m in lines if (m["event"], m["stage"], m["step"]) == ("step", stage, step))
    return found


def rows(key: str, count: int) -> str:
    return "".join(f'{{"prompt": "{key} {i}?", "target": "{i}{key}"}}\n' for i in range(count))


@pytest.fixture(scope="module")
def place(geomix: Any) -> Any:
    """Where runs are: the configurations, their data, and both as they are when left alone."""
    (geomix.folder / "facts.jsonl").write_text(rows("fact", 20))
    (geomix.folder / "known.jsonl").write_text(rows("known", 2))
    for name, text in (("run", RUN), ("arms", ARMS)):
        (geomix.folder / f"{name}.yaml").write_text(text)
        done = geomix(*begun(geomix, name, f"whole-{name}"))
        assert done.status == 0, done.err
    return geomix


def begun(geomix: Any, config: str, out: str) -> list[str]:
    return ["train", f"{config}.yaml", "--out", out, "--set", f"model={geomix.model}"]


@pytest.fixture(scope="module")
def whole(place: Any) -> Run:
    """The run as it is when left alone."""
    return Run(place.folder / "whole-run")


@pytest.fixture(scope="module")
def stopped(place: Any, whole: Run) -> str:
    """A run that was killed in its second stage, after step 5 of 6."""
    at = [(METRICS, line_of(whole, 1, 6), signal.SIGKILL)]
    killed = place(*begun(place, "run", "stopped"), at=at)
    assert killed.status == -signal.SIGKILL
    return "stopped"


def test_the_recorded_path_goes_on_too(place: Any) -> None:
    """The whole folder is the same, but for the pair that began before the checkpoint."""
    (place.folder / "path.yaml").write_text(PATH)
    assert place(*begun(place, "path", "whole-path")).status == 0
    fourth = line_of(Run(place.folder / "whole-path"), 0, 4)
    asked = place(*begun(place, "path", "path"), at=[(METRICS, fourth, signal.SIGKILL)])
    assert asked.status == -signal.SIGKILL
    resumed = place("train", "--resume", "path")
    assert "goes on in stage 1, facts, after step 3" in resumed.out
    lacks = "records/snapshots/stage0-step000004.h5"
    whole, found = place.tree("whole-path"), place.tree("path")
    assert [n for n in {**whole, **found} if whole.get(n) != found.get(n)] == [lacks]
    known, after = (read_snapshot(place.folder / n / lacks).path for n in ("whole-path", "path"))
    assert known is not None
    assert after is not None
    assert np.array_equal(known.products, after.products)
    assert (known.pair_from_step, after.pair) == (2, None)
    assert after.from_step == 3
    assert set(after.parts) == {"total", "D_A", "D_M"}
    assert Run(place.folder / "path").status()["state"] == "done"


@pytest.fixture
def killed(place: Any, stopped: str) -> Any:
    """A copy of that run, which a test may spoil."""
    shutil.rmtree(place.folder / "killed", ignore_errors=True)
    shutil.copytree(place.folder / stopped, place.folder / "killed")
    return place.folder / "killed"


def assert_same(place: Any, out: str, config: str = "run") -> None:
    whole, found = place.tree(f"whole-{config}"), place.tree(out)
    assert [n for n in {**whole, **found} if whole.get(n) != found.get(n)] == []
    assert Run(place.folder / out).status()["state"] == "done"


@contextmanager
def untouched(place: Any) -> Iterator[None]:
    """What is refused changes no file of the run, so that it can still go on as before."""
    before = place.tree("killed")
    yield
    assert place.tree("killed") == before
    assert Run(place.folder / "killed").status()["state"] in ("interrupted", "failed")


def one_line(done: Any) -> str:
    assert done.status == 2, done.out + done.err
    lines: list[str] = done.err.splitlines()
    assert [line.startswith("geomix: ") for line in lines] == [True], done.err
    return lines[0]


def test_a_run_that_is_asked_to_end_saves_after_the_step(place: Any, whole: Run) -> None:
    """Once by Ctrl-C twice, at once; then by a signal in each stage; each time the run goes on."""
    run = Run(place.folder / "asked")
    twice = [(METRICS, 3, signal.SIGINT), (METRICS, 4, signal.SIGINT)]  # of θ_0's evaluation
    asked = place(*begun(place, "run", "asked"), at=twice)
    assert asked.status == 130, asked.err
    assert asked.err.endswith("geomix: stopped\n")
    assert run.status()["state"] == "interrupted"
    assert not (run.path / FIRST).exists()

    known = list(whole.metrics())
    third = 1 + line_of(
        whole, 0, 3
    )  # it ends the epoch, which is evaluated too; old lines first go
    asked = place("train", "--resume", "asked", at=[(METRICS, third, signal.SIGTERM)])
    assert asked.out.startswith("asked: begins anew\n")
    assert asked.status == 75, asked.err
    assert asked.err.endswith("geomix: saved; go on with: geomix train --resume asked\n")
    assert "Ctrl-C again" not in asked.err
    assert run.status()["state"] == "interrupted"
    assert list(run.metrics()) == known[: line_of(whole, 0, 4) - 1]
    assert (run.path / FIRST / "step-000003").is_dir()
    assert "next: geomix train --resume asked" in place("show", "asked").out

    first = line_of(whole, 1, 1) - line_of(whole, 0, 4) + 1  # lines are counted anew
    asked = place("train", "--resume", "asked", at=[(METRICS, first, signal.SIGINT)])
    assert asked.out.startswith("asked: goes on in stage 1, facts, after step 3\n")
    assert asked.status == 75, asked.err
    assert "Ctrl-C again" in asked.err
    assert list(run.metrics()) == known[: line_of(whole, 1, 1)]
    resumed = place("train", "--resume", "asked")
    assert resumed.out.startswith("asked: goes on in stage 2, arithmetic, after step 1\n")
    assert_same(place, "asked")


def test_what_a_stopping_rule_has_seen_survives(place: Any) -> None:
    """Every loss counts, and the third ends the first stage; the kill comes after the second."""
    rule = ["stages.0.stop.loss_below=1e9", "stages.0.stop.times=3", "stages.1.stop.steps=1"]
    often = [part for key in [*rule, "checkpoint.steps=1"] for part in ("--set", key)]
    done = place(*begun(place, "run", "rule"), *often)
    assert done.status == 0, done.err
    run = Run(place.folder / "rule")
    assert [m["step"] for m in run.metrics() if m["stage"] == 0][-1] == 3
    assert "≤ 2, loss <" in place("show", "rule").out.replace("\n", " ")
    at = [(METRICS, line_of(run, 0, 3), signal.SIGKILL)]
    killed = place(*begun(place, "run", "killed-rule"), *often, at=at)
    assert killed.status == -signal.SIGKILL
    assert "after step 2" in place("train", "--resume", "killed-rule").out
    assert place.tree("killed-rule") == place.tree("rule")


def test_going_on_with_a_finished_run_says_so_and_changes_nothing(place: Any) -> None:
    run = place.folder / "whole-arms"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "lock"}
    done = place("train", "--resume", "whole-arms")
    assert done.status == 0, done.err
    assert done.out.startswith("whole-arms: done already, nothing is left to train\n")
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.name != "lock"} == before


def test_another_configuration_is_refused_with_what_differs(place: Any, killed: Path) -> None:
    same = ["train", "run.yaml", "--resume", "killed", "--set", f"model={place.model}"]
    before = place.tree("killed")
    status = (killed / "status.json").read_bytes()
    other = place(*same, "--set", "train.lr=0.02", "--set", "stages.1.stop.epochs=4")
    assert other.status == 2
    assert other.err.splitlines() == [
        "geomix: killed: stages.1.stop.epochs was 3, is 4",
        "geomix: killed: train.lr was 0.01, is 0.02",
        "geomix: killed: go on with --resume alone, or begin a new run with --out",
    ]
    assert place.tree("killed") == before
    assert (killed / "status.json").read_bytes() == status
    line = one_line(place("train", "--resume", "killed", "--set", "train.lr=0.02"))
    assert "--resume takes no changes: leave out --set and --arm, or begin a new run" in line
    line = one_line(place(*same, "--out", "else"))
    assert "leave out --out" in line
    saved = place(*same, "--set", "checkpoint.steps=1")
    assert saved.status == 0, saved.err
    assert any("step-000005.partial" in change for change in saved.changes), "the new key is used"
    assert_same(place, "killed")


@pytest.mark.parametrize(
    ("file", "key", "named"), [("facts.jsonl", "fact", "D_A"), ("known.jsonl", "known", "known")]
)
def test_changed_data_is_refused_by_name(
    place: Any, killed: Path, file: str, key: str, named: str
) -> None:
    """Examples that were changed, or that are not there any more; nothing is touched."""
    data = place.folder / file
    known = data.read_text()
    try:
        with untouched(place):
            data.write_text(known.replace(key, "other"))
            line = one_line(place("train", "--resume", "killed"))
            assert f" {named} is not what it was when the run began" in line
            assert named == "known" or f"restore {file} or" in line
            data.unlink()
            assert file in one_line(place("train", "--resume", "killed"))
    finally:
        data.write_text(known)


def test_a_second_process_is_refused(place: Any, killed: Path) -> None:
    with untouched(place), Run(killed).locked():
        line = one_line(place("train", "--resume", "killed"))
    assert line == "geomix: killed: another process is writing this run"


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(place: Any, killed: Path) -> None:
    """Every other damage of every file: `make torture`."""
    flip(killed / SECOND / "step-000004" / "model.safetensors")
    resumed = place("train", "--resume", "killed")
    skipped, goes_on, *_ = resumed.out.splitlines()
    assert skipped == f"skipped: killed/{SECOND}/step-000004: model.safetensors is damaged"
    assert goes_on == "killed: goes on in stage 2, arithmetic, after step 2"
    assert_same(place, "killed")
    assert (killed / SECOND / "step-000004.damaged").is_dir()


def test_where_all_are_damaged_the_run_begins_anew(place: Any, killed: Path) -> None:
    (killed / SECOND / "step-000004" / "manifest.json").unlink()
    cut(killed / SECOND / "step-000002" / "optimiser.safetensors")
    flip(killed / FIRST / "final" / "position.json")
    lines = place("train", "--resume", "killed").out.splitlines()
    assert lines[:4] == [
        f"skipped: killed/{SECOND}/step-000004: incomplete, it lacks manifest.json",
        f"skipped: killed/{SECOND}/step-000002: optimiser.safetensors is damaged",
        f"skipped: killed/{FIRST}/final: position.json is damaged",
        "killed: begins anew",
    ]
    assert_same(place, "killed")


def test_a_stage_that_has_ended_is_not_lost_with_the_next_ones_checkpoints(
    place: Any, killed: Path
) -> None:
    for name in ("step-000004", "step-000002"):
        cut(killed / SECOND / name / "model.safetensors")
    assert "killed: goes on with stage 2, arithmetic\n" in place("train", "--resume", "killed").out
    assert_same(place, "killed")


def test_metrics_that_are_shorter_than_the_checkpoint_knows_are_refused(
    place: Any, killed: Path
) -> None:
    metrics = killed / "metrics.jsonl"
    content = metrics.read_bytes()
    with untouched(place):
        metrics.write_bytes(content[:900])
        assert "metrics.jsonl: 900 bytes of the" in one_line(place("train", "--resume", "killed"))
        assert metrics.read_bytes() == content[:900]
        metrics.write_bytes(content)


@pytest.fixture
def small_disk(place: Any) -> Iterator[Path]:
    """A file system of its own in memory, which takes root to mount."""
    folder: Path = place.folder / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def survives_a_full_disk(place: Any, disk: Path, size: int) -> bool:
    """`size` in kB: what does not fit is a line, and goes on when there is space. True if so."""
    shutil.rmtree(disk / "run", ignore_errors=True)
    subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
    done = place(*begun(place, "run", "disk/run"))
    if done.status == 0:
        return False
    line = one_line(done)
    assert "No space left on device" in line, line
    if not (disk / "run" / "resolved.json").exists():
        assert "not a run" in one_line(place("train", "--resume", "disk/run"))
        return True
    again = one_line(place("train", "--resume", "disk/run"))
    assert "No space left on device" in again, again
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    resumed = place("train", "--resume", "disk/run")
    assert resumed.status == 0, resumed.err
    assert_same(place, "disk/run")
    return True


@pytest.mark.parametrize("size", [8, 600])
def test_a_full_disk_is_one_line_and_space_heals_it(
    place: Any, small_disk: Path, size: int
) -> None:
    assert survives_a_full_disk(place, small_disk, size)


@pytest.mark.torture
def test_a_disk_of_any_size_that_is_full(
    place: Any, whole: Run, small_disk: Path, tally: Counter[str]
) -> None:
    """Finely up to the first checkpoints, then every 300 kB until all fits: the run and a spare."""
    files = [file.stat().st_size for file in whole.path.rglob("*") if file.is_file()]
    for size in [*range(8, 100, 12), *range(100, 1200, 100), *range(1200, 6000, 300)]:
        tally["losses"] += 1
        full = survives_a_full_disk(place, small_disk, size)
        tally["losses"] -= 1
        if not full:
            break
        tally["full disks"] += 1
    assert sum(files) < 1024 * size < 4 * sum(files)
    assert tally["full disks"] > 20


@pytest.mark.parametrize("limit", [900, 120_000, pytest.param(6_500, marks=pytest.mark.torture)])
def test_a_file_that_cannot_grow_is_one_line(place: Any, limit: int) -> None:
    """As under `ulimit -f`."""
    shutil.rmtree(place.folder / "full", ignore_errors=True)
    line = one_line(place(*begun(place, "run", "full"), limit=limit))
    assert "File too large" in line
    if limit > 1000:
        assert one_line(place("train", "--resume", "full", limit=limit)) == line
        assert place("train", "--resume", "full").status == 0
        assert_same(place, "full")


def test_a_folder_that_cannot_be_written_is_one_line(place: Any, killed: Path) -> None:
    """The run's own before anything is done; that of checkpoints when one is due."""
    for folder in (killed, killed / SECOND):
        before = place.tree("killed")
        folder.chmod(0o555)
        try:
            line = one_line(place("train", "--resume", "killed", powerless=True))
        finally:
            folder.chmod(0o755)
        assert "Permission denied" in line
        assert folder != killed or place.tree("killed") == before
    assert place("train", "--resume", "killed").status == 0
    assert_same(place, "killed")


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(place: Any, killed: Path) -> None:
    file = killed / SECOND / "step-000004" / "model.safetensors"
    with untouched(place):
        file.chmod(0)
        line = one_line(place("train", "--resume", "killed", powerless=True))
        file.chmod(0o644)
    assert line.endswith("model.safetensors: Permission denied")


def test_an_arm_that_is_done_is_left_alone(place: Any) -> None:
    """The group is killed before the second arm's folder is made, in it, and after all is done."""
    whole = Run(place.folder / "whole-arms" / "arms" / "plain")
    begin, going_on = begun(place, "arms", "arms"), ["train", "--resume", "arms"]
    second = (r"write arms/arms/plain/metrics\.jsonl", line_of(whole, 0, 3), signal.SIGKILL)
    killed = place(*begin, at=[("mkdir arms/arms/plain ", 1, signal.SIGKILL)])
    assert killed.status == -signal.SIGKILL
    first = place.folder / "arms" / "arms" / "mixed"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    end = ("rename arms/status.json", 3, signal.SIGKILL)  # it goes on, in that arm, done
    for at, says in (
        (second, ["arms/arms/plain: begins anew"]),
        (end, ["arms/arms/plain: goes on in stage 1, facts, after step 2"]),
        (None, []),
    ):
        resumed = place(*going_on, at=at and [at])
        assert resumed.status == (-signal.SIGKILL if at else 0), resumed.err
        said = [line for line in resumed.out.splitlines() if line.startswith("arms/arms/")]
        assert said == says
        assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert_same(place, "arms", "arms")
