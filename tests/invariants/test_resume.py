"""Going on with a run through the real command line: signals, damage, refusals, arms."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.api import Run
from geomix.snapshots.file import read_snapshot

RUN = """stages:
  - data: {source: facts.jsonl, limit: 6}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 3}
  - data: {source: arithmetic, limit: 5}
    replay: 0.5
    stop: {epochs: 3}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, "every:5"], probes: 3}
checkpoint: {steps: 3}
evaluate: {sets: {known: {source: known.jsonl, limit: 2}}}
"""
"""4 steps × 3 epochs, then 3 × 3."""

ARMS = (
    RUN
    + """arms:
  mixed: {stages.0.stop.epochs: 1}
  plain: {stages.0.mix: null}
"""
)
PATH = RUN.replace('at: [boundaries, "every:5"]', "preset: path")
PATH = PATH.replace("train: {", "train: {update_shares: true, ")
PATH = PATH.replace("epochs: 3", "steps: 6", 1).replace("epochs: 3", "steps: 2", 1)
METRICS = r"write \S+/metrics\.jsonl"
FIRST, SECOND = "stages/0-facts/checkpoints", "stages/1-arithmetic/checkpoints"


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
def stopped(place: Any) -> str:
    """A run that was killed in its second stage, after step 7 of 9: 4 + 20 + 6 + 6 lines + that."""
    killed = place(*begun(place, "run", "stopped"), at=[(METRICS, 38, signal.SIGKILL)])
    assert killed.status == -signal.SIGKILL
    return "stopped"


def test_the_recorded_path_goes_on_too(place: Any) -> None:
    """The whole folder is the same, but for the pair that began before the checkpoint."""
    (place.folder / "path.yaml").write_text(PATH)
    assert place(*begun(place, "path", "whole-path")).status == 0
    asked = place(*begun(place, "path", "path"), at=[(METRICS, 4 + 4, signal.SIGKILL)])
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


def one_line(done: Any) -> str:
    assert done.status == 2, done.out + done.err
    lines: list[str] = done.err.splitlines()
    assert [line.startswith("geomix: ") for line in lines] == [True], done.err
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_after_the_step(place: Any, number: int) -> None:
    """Before line 10, of step 4: it ends the epoch, which is evaluated, and no third one."""
    out = f"asked-{number}"
    asked = place(*begun(place, "run", out), at=[(METRICS, 4 + 4, number)])
    assert asked.status == 75, asked.err
    assert asked.err.endswith(f"geomix: saved; go on with: geomix train --resume {out}\n")
    assert ("Ctrl-C again" in asked.err) == (number == signal.SIGINT)
    run = Run(place.folder / out)
    assert json.loads(run.status_file.read_text())["state"] == "interrupted"
    assert [line["event"] for line in run.metrics()] == ["evaluation"] * 4 + ["step"] * 4 + [
        "evaluation"
    ] * 2
    assert (run.path / FIRST / "step-000004").is_dir()
    assert f"next: geomix train --resume {out}" in place("show", out).out
    resumed = place("train", "--resume", out)
    assert resumed.out.startswith(f"{out}: goes on in stage 1, facts, after step 4\n")
    assert_same(place, out)


def test_ctrl_c_twice_ends_at_once(place: Any) -> None:
    """Both while θ_0 is evaluated, before there is a step to wait for."""
    twice = [(METRICS, 3, signal.SIGINT), (METRICS, 4, signal.SIGINT)]
    asked = place(*begun(place, "run", "twice"), at=twice)
    assert asked.status == 130, asked.err
    assert asked.err.endswith("geomix: stopped\n")
    run = Run(place.folder / "twice")
    assert json.loads(run.status_file.read_text())["state"] == "interrupted"
    assert not (run.path / FIRST).exists()
    assert place("train", "--resume", "twice").out.startswith("twice: begins anew\n")
    assert_same(place, "twice")


def test_what_a_stopping_rule_has_seen_survives(place: Any) -> None:
    """Three losses below the lower quartile end the first stage; the kill comes after the first."""
    steps = [m for m in Run(place.folder / "whole-run").metrics() if m["event"] == "step"]
    losses = [m["loss"] for m in steps if m["stage"] == 0]
    limit = sorted(losses)[3]
    below = [step for step, loss in enumerate(losses, 1) if loss < limit]
    assert len(below) == 3
    assert below[-1] - below[0] >= 2
    rule = ["--set", f"stages.0.stop.loss_below={limit!r}", "--set", "stages.0.stop.times=2"]
    often = [*rule, "--set", "checkpoint.steps=1"]
    whole = place(*begun(place, "run", "rule"), *often)
    assert whole.status == 0, whole.err
    ended = [m["step"] for m in Run(place.folder / "rule").metrics() if m["stage"] == 0][-1]
    assert ended == below[1] < 12
    assert "≤ 3, loss <" in place("show", "rule").out.replace("\n", " ")
    lines = [m["event"] == "step" for m in Run(place.folder / "rule").metrics()]
    line = [n for n, step in enumerate(lines, 1) if step][below[1] - 1]
    killed = place(*begun(place, "run", "killed-rule"), *often, at=[(METRICS, line, 9)])
    assert killed.status == -signal.SIGKILL
    again = place("train", "--resume", "killed-rule")
    assert f"after step {below[1] - 1}" in again.out
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
    assert any("step-000008.partial" in change for change in saved.changes), "the new key is used"
    assert_same(place, "killed")


@pytest.mark.parametrize(
    ("file", "key", "named"), [("facts.jsonl", "fact", "D_A"), ("known.jsonl", "known", "known")]
)
def test_changed_data_is_refused_by_name(
    place: Any, killed: Path, file: str, key: str, named: str
) -> None:
    """Examples that were changed, or that are not there any more; then they are restored."""
    before = place.tree("killed")
    data, count = place.folder / file, 20 if key == "fact" else 2
    data.write_text(rows("other", count))
    line = one_line(place("train", "--resume", "killed"))
    assert f" {named} is not what it was when the run began" in line
    assert named == "known" or f"restore {file} or" in line
    data.unlink()
    assert file in one_line(place("train", "--resume", "killed"))
    data.write_text(rows(key, count))
    assert place.tree("killed") == before
    resumed = place("train", "--resume", "killed")
    assert "after step 6" in resumed.out
    assert_same(place, "killed")


def test_a_second_process_is_refused(place: Any, killed: Path) -> None:
    with Run(killed).locked():
        line = one_line(place("train", "--resume", "killed"))
    assert line == "geomix: killed: another process is writing this run"


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "name", "says"),
    [
        (flip, "model.safetensors", "model.safetensors is damaged"),
        (cut, "optimiser.safetensors", "optimiser.safetensors is damaged"),
        (Path.unlink, "manifest.json", "incomplete, it lacks manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    place: Any, killed: Path, damage: Callable[[Path], None], name: str, says: str
) -> None:
    damage(killed / SECOND / "step-000006" / name)
    resumed = place("train", "--resume", "killed")
    skipped, goes_on, *_ = resumed.out.splitlines()
    assert skipped == f"skipped: killed/{SECOND}/step-000006: {says}"
    assert goes_on == "killed: goes on in stage 2, arithmetic, after step 3"
    assert_same(place, "killed")
    assert (killed / SECOND / "step-000006.damaged").is_dir()


def test_where_all_are_damaged_the_run_begins_anew(place: Any, killed: Path) -> None:
    for name in (f"{SECOND}/step-000006", f"{SECOND}/step-000003", f"{FIRST}/final"):
        flip(killed / name / "position.json")
    resumed = place("train", "--resume", "killed")
    lines = resumed.out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["skipped"] * 3
    assert f"{FIRST}/final: position.json is damaged" in lines[2]
    assert lines[3] == "killed: begins anew"
    assert_same(place, "killed")


def test_a_stage_that_has_ended_is_not_lost_with_the_next_ones_checkpoints(
    place: Any, killed: Path
) -> None:
    for name in ("step-000006", "step-000003"):
        cut(killed / SECOND / name / "model.safetensors")
    assert "killed: goes on with stage 2, arithmetic\n" in place("train", "--resume", "killed").out
    assert_same(place, "killed")


def test_metrics_that_are_shorter_than_the_checkpoint_knows_are_refused(
    place: Any, killed: Path
) -> None:
    metrics = killed / "metrics.jsonl"
    content = metrics.read_bytes()
    metrics.write_bytes(content[:900])
    assert "metrics.jsonl: 900 bytes of the" in one_line(place("train", "--resume", "killed"))
    metrics.write_bytes(content)
    assert place("train", "--resume", "killed").status == 0
    assert_same(place, "killed")


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


def survives_a_full_disk(place: Any, disk: Path, size: int) -> None:
    """`size` in kB: what does not fit is a line, and goes on when there is space."""
    shutil.rmtree(disk / "run", ignore_errors=True)
    subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
    line = one_line(place(*begun(place, "run", "disk/run")))
    assert "No space left on device" in line, line
    if not (disk / "run" / "resolved.json").exists():
        assert "not a run" in one_line(place("train", "--resume", "disk/run"))
        return
    again = one_line(place("train", "--resume", "disk/run"))
    assert "No space left on device" in again, again
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    resumed = place("train", "--resume", "disk/run")
    assert resumed.status == 0, resumed.err
    assert_same(place, "disk/run")


@pytest.mark.parametrize("size", [8, 40, 600, 2000])
def test_a_full_disk_is_one_line_and_space_heals_it(
    place: Any, small_disk: Path, size: int
) -> None:
    survives_a_full_disk(place, small_disk, size)


@pytest.mark.slow
def test_a_disk_of_any_size_that_is_full(place: Any, small_disk: Path, tally: Counter[str]) -> None:
    """Finely up to the first checkpoints, then every 300 kB."""
    for size in [*range(8, 100, 12), *range(100, 1200, 100), *range(1200, 3000, 300)]:
        tally["full disks"] += 1
        tally["losses"] += 1
        survives_a_full_disk(place, small_disk, size)
        tally["losses"] -= 1


@pytest.mark.parametrize("limit", [900, 6_500, 120_000])
def test_a_file_that_cannot_grow_is_one_line(place: Any, limit: int) -> None:
    """As under `ulimit -f`."""
    shutil.rmtree(place.folder / "full", ignore_errors=True)
    line = one_line(place(*begun(place, "run", "full"), limit=limit))
    assert "File too large" in line
    if limit > 1000:
        assert one_line(place("train", "--resume", "full", limit=limit)) == line
        assert place("train", "--resume", "full").status == 0
        assert_same(place, "full")


@pytest.mark.parametrize("folder", [".", SECOND])
def test_a_folder_that_cannot_be_written_is_one_line(place: Any, killed: Path, folder: str) -> None:
    (killed / folder).chmod(0o555)
    try:
        line = one_line(place("train", "--resume", "killed", powerless=True))
    finally:
        (killed / folder).chmod(0o755)
    assert "Permission denied" in line
    assert place("train", "--resume", "killed").status == 0
    assert_same(place, "killed")


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(place: Any, killed: Path) -> None:
    file = killed / SECOND / "step-000006" / "model.safetensors"
    file.chmod(0)
    line = one_line(place("train", "--resume", "killed", powerless=True))
    file.chmod(0o644)
    assert line.endswith("model.safetensors: Permission denied")
    assert "after step 6" in place("train", "--resume", "killed").out
    assert_same(place, "killed")


@pytest.mark.parametrize("when", ["between the arms", "in the second arm", "at the end"])
def test_an_arm_that_is_done_is_left_alone(place: Any, when: str) -> None:
    """The group is killed before the second arm's folder is made, in it, or after all is done."""
    points = {
        "between the arms": ("mkdir arms/arms/plain ", 1),
        "in the second arm": (r"write arms/arms/plain/metrics\.jsonl", 9),
        "at the end": ("rename arms/status.json", 4),
    }
    shutil.rmtree(place.folder / "arms", ignore_errors=True)
    pattern, count = points[when]
    killed = place(*begun(place, "arms", "arms"), at=[(pattern, count, signal.SIGKILL)])
    assert killed.status == -signal.SIGKILL
    first = place.folder / "arms" / "arms" / "mixed"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    resumed = place("train", "--resume", "arms")
    expected = {
        "between the arms": "arms/arms/plain: begins anew",
        "in the second arm": "arms/arms/plain: goes on in stage 1, facts, after step 3",
    }
    said = [line for line in resumed.out.splitlines() if line.startswith("arms/arms/")]
    assert said == [text for name, text in expected.items() if name == when]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert_same(place, "arms", "arms")
