"""A study becomes its members; each is run once and resumes where it stopped."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from geomix.cli import main
from geomix.cli.runs import named_runs
from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.studies.board import Board, results_table
from geomix.studies.local import Local, member_environment
from geomix.studies.member import Member, Outcome, State, command, last_line, outcome
from geomix.studies.runner import run_members
from geomix.studies.slurm import Slurm, become_training
from geomix.studies.sweep_file import Study, load_study
from geomix.util.console import Console
from geomix.util.errors import UserError
from geomix.util.signals import EXIT
from tests.members import train_members_here

BASE = """model: {model}
stages:
  - data: {{source: kvr, limit: 8}}
    stop: {{epochs: 2}}
train: {{batch_size: 4}}
record: null
"""


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `base.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "base.yaml").write_text(BASE.format(model=tiny_model))
    return tmp_path


def study(desk: Path, text: str, *overrides: str) -> Study:
    (desk / "study.yaml").write_text(f"base: base.yaml\n{text}")
    return load_study(Path("study.yaml"), overrides, tuple(SOURCES))


def sweep(*options: str) -> Result:
    return CliRunner().invoke(main, ["sweep", "study.yaml", *options])


def facts(result: Result) -> dict[str, dict[str, Any]]:
    return {one["member"]: one for one in json.loads(result.stdout)}


def lines_of(folder: Path, event: str) -> list[dict[str, Any]]:
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [
        one for line in lines if line[-1] == "\n" and (one := json.loads(line))["event"] == event
    ]


# What a study means.


def test_a_grid_is_every_combination_one_seed_after_the_other(desk: Path) -> None:
    found = study(
        desk,
        "set: {train.clip: 3}\nseeds: [4, 7]\ngrid:\n  train.lr: [1, 2]\n"
        "  stages.0.mix: [null, {source: random-words, words: 3}]",
    )
    runs = [member.experiment.arms[""] for member in found.members]
    mixes = [run.stages[0].mix and run.stages[0].mixes["D_M"].words for run in runs]
    assert [
        (run.seed, mix, run.stages[0].train.lr) for run, mix in zip(runs, mixes, strict=True)
    ] == [(seed, mix, lr) for seed in (4, 7) for lr in (1, 2) for mix in (None, 3)]
    assert {run.train.clip for run in runs} == {3}
    assert found.members[2].name == "seed=4,train.lr=2,stages.0.mix=null"
    assert found.folder == Path("runs/study")


def test_named_runs_have_every_seed(desk: Path) -> None:
    found = study(desk, "seeds: [0, 1]\nruns: {slow: {train.lr: 0.1}, plain: }\nout: here")
    assert [member.name for member in found.members] == [
        "slow,seed=0",
        "plain,seed=0",
        "slow,seed=1",
        "plain,seed=1",
    ]
    assert [m.experiment.arms[""].train.lr for m in found.members] == [0.1, 5e-5] * 2
    assert found.members[0].run.path == Path("here/slow,seed=0")


def test_a_member_is_a_configuration_of_its_own(desk: Path) -> None:
    (desk / "base.yaml").write_text(
        (desk / "base.yaml").read_text() + "arms: {a: {train.lr: 9}, b: {stages.0.name: other}}"
    )
    (member,) = study(desk, "set: {train.lr: 3}\nseeds: [5]").members
    (desk / "again.yaml").write_text(member.experiment.text)
    assert load(desk / "again.yaml").arms == member.experiment.arms
    assert [arm.train.lr for arm in member.experiment.arms.values()] == [9, 3]


def test_a_study_reaches_into_one_arm(desk: Path) -> None:
    base = (desk / "base.yaml").read_text()
    (desk / "base.yaml").write_text(base + "arms: {a: {train.lr: 9}, b: {stages.0.name: other}}")
    found = study(desk, "set: {arms.a.train.lr: 3}\ngrid: {arms.b.train.lr: [1, 2]}").members
    rates = [[arm.train.lr for arm in member.experiment.arms.values()] for member in found]
    assert rates == [[3, 1], [3, 2]]
    with pytest.raises(UserError, match=r"no arm 'c'; its arms: a, b"):
        study(desk, "set: {arms.c.train.lr: 3}\nseeds: [0]")


def test_a_preset_is_a_base_and_set_comes_from_the_command_line_too(desk: Path) -> None:
    (desk / "study.yaml").write_text("base: demo\nset: {stages.0.data.limit: 7}\nseeds: [1]")
    (member,) = load_study(Path("study.yaml"), ["stages.0.data.limit=9"]).members
    assert list(member.experiment.arms) == ["plain", "mixed", "control"]
    assert {arm.stages[0].data.limit for arm in member.experiment.arms.values()} == {9}


def test_names_are_safe_and_depend_on_the_member_alone(desk: Path) -> None:
    files = "set: {stages.0.data: {source: f.csv}}\ngrid: {stages.0.data.source: "
    few = study(desk, f"{files}['a/b.csv', 'a:b.csv']}}").members
    assert few[0].name.startswith("stages.0.data.source=a-b.csv-")
    assert few[0].name != few[1].name
    assert [m.name for m in study(desk, f"{files}['c.csv', 'a/b.csv']}}").members][1] == few[0].name
    (long,) = study(desk, f"{files}['{'x' * 300}.csv']}}").members
    assert len(long.name) < 140


BAD = {
    "seds: [1]": ["study.yaml:2 seds: unknown key; did you mean 'seeds'?"],
    "seeds: [a]": ["study.yaml:2 seeds[0]: must be a whole number (given: 'a')"],
    "grid: {train.lr: 3}": ["study.yaml:2 grid.train.lr: must be a list, `[one, two]` (given: 3)"],
    "jobs: 2": ["study.yaml: nothing varies; give `grid:`, `runs:` or `seeds: [0, 1, 2]`"],
    "runs: {a: }\ngrid: {seed: [1]}": ["study.yaml:2 runs: either `runs:` or `grid:`; leave one"],
    "seeds: [1]\nruns: {a: {seed: 2}}": ["study.yaml:3 runs.a.seed: either this or `seeds:`"],
    "seeds: [1]\nset: {seed: 2}": ["study.yaml:3 set.seed: has no effect; study.yaml:2 seeds var"],
    "seeds: [1, 1]": ["study.yaml: 2 members would be named seed=1; give each value once"],
    "seeds: [1]\nslurm: {partitoin: a}": [
        "study.yaml:3 slurm.partitoin: no option of submitit; did you mean 'partition'?"
    ],
    "seeds: [1]\nslurm: {array_parallelism: 2}": [
        "study.yaml:3 slurm.array_parallelism: say `jobs:`"
    ],
    "grid:\n  seed: [1, -1]\n  train.lr: [0,\n  1]\n  stages.2.mix: [1]\nset: {train.clips: 1}": [
        "study.yaml:6 grid.stages.2.mix[0]: stages has 1 items; '2' is not the number of one",
        "study.yaml:7 set.train.clips: unknown key; did you mean 'clip'?",
        "study.yaml:4 grid.train.lr[0]: must be greater than 0 (given: 0)",
        "study.yaml:3 grid.seed[1]: must be greater than or equal to 0 (given: -1)",
    ],
    "grid: {'stages[0].data.limit': [4], stages.0.data.limit: [5]}": [
        "study.yaml:2 grid.stages.0.data.limit: study.yaml:2 grid.stages[0].data.limit varies it"
    ],
    "grid: {train.lr: [1], train: [{clip: 1}]}": [
        "study.yaml:2 grid.train: study.yaml:2 grid.train.lr varies it already, or a part of it"
    ],
    "runs: {a: , a.log: }": ["study.yaml:2 runs.a.log: no name for a run, whose files beside"],
    'seeds: [1]\nout: "a\\nb"': ["study.yaml:3 out: a folder's name on one line"],
    "seeds: [1]\nset: {stages.0.data.source: kvrr}": [
        "study.yaml:3 set.stages.0.data.source: unknown source; did you mean 'kvr'?"
    ],
}


@pytest.mark.parametrize("text", BAD)
def test_every_mistake_is_a_line_and_nothing_is_made(desk: Path, text: str) -> None:
    (desk / "study.yaml").write_text(f"base: base.yaml\n{text}\n")
    before = sorted(desk.rglob("*"))
    result = sweep()
    found = result.stderr.splitlines()
    assert result.exit_code == 2
    assert len(found) == len(BAD[text]), found
    for says in BAD[text]:
        assert any(line.startswith(f"geomix: {says}") for line in found), found
    assert sorted(desk.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [1]", "study.yaml base: missing; it must be given"),
        ("[a]", "study.yaml: a study is a mapping that holds at least `base:` and what varies"),
        ("base: other.yaml\nseeds: [1]", "other.yaml: no such file"),
        ("base: base.yaml\ngrid: {a: [%s], b: [%s]}", "study.yaml: 12100 members; the most is"),
    ],
)
def test_a_study_that_cannot_be_read_is_a_line(desk: Path, text: str, says: str) -> None:
    values = ", ".join(map(str, range(110)))
    (desk / "study.yaml").write_text(text.replace("%s", values))
    with pytest.raises(UserError) as error:
        load_study(Path("study.yaml"))
    assert [line[: len(says)] for line in error.value.lines] == [says]


# How members are started, with an executor that only notes.


class Notes:
    """An executor whose members end when they are looked at, with the statuses given."""

    pause = 0.0
    outlasts = False

    def __init__(self, jobs: int, statuses: Mapping[str, int] | None = None) -> None:
        self.jobs, self.statuses = jobs, statuses or {}
        self.under_way: list[Member] = []
        self.most, self.order, self.asked, self.closed = 0, list[str](), 0, 0

    def running(self) -> Mapping[str, State]:
        return {member.name: "running" for member in self.under_way}

    def room(self) -> int:
        return self.jobs - len(self.under_way)

    def start(self, members: Sequence[Member]) -> None:
        self.under_way += members
        self.order += [member.name for member in members]
        self.most = max(self.most, len(self.under_way))

    def ended(self) -> dict[str, int | None]:
        if not self.under_way:
            return {}
        member = self.under_way.pop(0)
        return {member.name: self.statuses.get(member.name, 3)}

    def ask_to_end(self) -> None:
        self.asked += 1

    def close(self) -> None:
        self.closed += 1


class Deaf:
    """Listens to nothing."""

    def started(self, members: Sequence[Member]) -> None: ...

    def ended(self, member: Member, result: Outcome) -> None: ...

    def update(self, running: Mapping[str, State], left: int) -> None: ...


def test_no_more_members_run_than_there_is_room_for(desk: Path) -> None:
    members = study(desk, "seeds: [0, 1, 2, 3, 4]").members
    notes = Notes(2, {"seed=3": EXIT})
    results = run_members(members, notes, lambda: False, Deaf())
    assert notes.order == [f"seed={n}" for n in range(5)]
    assert (notes.most, notes.asked, notes.closed) == (2, 0, 1)
    assert [result.state for result in results.values()] == ["failed"] * 3 + [
        "interrupted",
        "failed",
    ]
    assert members[4].config_file.read_text() == members[4].experiment.text


def test_being_asked_to_end_starts_nothing_more_and_waits(desk: Path) -> None:
    members = study(desk, "seeds: [0, 1, 2, 3]").members
    notes = Notes(2, dict.fromkeys(("seed=0", "seed=1", "seed=2"), EXIT))
    results = run_members(members, notes, lambda: len(notes.order) > 2, Deaf())
    states = [result.state for result in results.values()]
    assert states == ["interrupted", "interrupted", "interrupted", "left"]
    assert (notes.asked, notes.closed) == (1, 1)


def test_being_asked_to_end_interrupts_the_waiting(desk: Path) -> None:
    notes = Notes(2)
    notes.pause, notes.outlasts, begun = 60.0, True, time.monotonic()
    results = run_members(
        study(desk, "seeds: [0, 1, 2]").members,
        notes,
        lambda: time.monotonic() > begun + 0.5,
        Deaf(),
    )
    assert time.monotonic() < begun + 30
    assert [result.state for result in results.values()] == ["failed", "running", "left"]


def test_a_member_that_another_process_writes_is_waited_for(desk: Path) -> None:
    members = study(desk, "seeds: [0, 1]").members
    notes, looks = Notes(2), 0
    with members[0].run.locked():

        def stop() -> bool:
            nonlocal looks
            looks += 1
            return looks > 50

        results = run_members(members, notes, stop, Deaf())
    assert notes.order == ["seed=1"]
    assert results["seed=0"].state == "left"


def test_a_start_that_was_killed_before_it_was_a_run_begins_anew(desk: Path) -> None:
    (member,) = study(desk, "seeds: [0]").members
    with member.run.locked():
        (member.run.path / "env.json.partial").write_text("{")
    run_members([member], Notes(1), lambda: False, Deaf())
    assert list(member.run.path.iterdir()) == []
    member.run.resolved_file.write_text("{}")
    run_members([member], Notes(1), lambda: False, Deaf())
    assert list(member.run.path.iterdir()) == [member.run.resolved_file], "now it is a run"


@pytest.mark.parametrize(
    ("status", "log", "state", "why"),
    [
        (EXIT, "saved", "interrupted", ""),
        (-signal.SIGTERM, "", "interrupted", ""),
        (-signal.SIGKILL, "a\n", "failed", "killed by signal 9"),
        (2, "$ x\ngeomix: no data\n\n", "failed", "no data"),
        (1, "geomix: old\n$ x\n", "failed", "exit status 1"),
        (None, "Traceback\nValueError: é\n", "failed", "ValueError: é"),
    ],
)
def test_how_a_process_ended(desk: Path, status: int, log: str, state: str, why: str) -> None:
    (member,) = study(desk, "seeds: [0]").members
    member.sweep.mkdir(parents=True)
    member.log.write_text(log)
    assert outcome(member, status) == Outcome(state, why)  # type: ignore[arg-type]
    assert last_line(desk / "none") == ""


def test_the_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [member_environment(0, n)["OMP_NUM_THREADS"] for n in (1, 3, 20)] == ["8", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert member_environment(0, 1)["OMP_NUM_THREADS"] == "5"


def test_members_side_by_side_have_a_gpu_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices(jobs: int) -> list[str | None]:
        return [member_environment(n, jobs).get("CUDA_VISIBLE_DEVICES") for n in range(jobs)]

    monkeypatch.setattr("geomix.studies.local.GPUS", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(2) == [None, None]
    for name in ("0000:01", "0000:02"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("geomix.studies.local.GPUS", tmp_path)
    assert (devices(1), devices(3)) == ([None], ["0", "1", "0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert (devices(1), devices(2)) == (["6,7"], ["6", "7"])


def test_a_member_has_a_free_gpu_while_others_run(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Process:
        """One that ends when it is told to."""

        def __init__(self, _: object, env: dict[str, str], **__: object) -> None:
            self.device = env["CUDA_VISIBLE_DEVICES"]
            self.status: int | None = None
            made.append(self)

        def poll(self) -> int | None:
            return self.status

    made: list[Process] = []
    monkeypatch.setattr("geomix.studies.local.subprocess.Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    members = study(desk, "seeds: [0, 1, 2]").members
    members[0].sweep.mkdir(parents=True)
    local = Local(2)
    local.start(members[:1])
    local.start(members[1:2])
    assert local.room() == 0
    made[0].status = 0
    assert local.ended() == {members[0].name: 0}
    local.start(members[2:])
    assert [process.device for process in made] == ["6", "7", "6"]


def test_what_slurm_calls_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that has left the queue is none of those under way."""
    states = ["PENDING", "CONFIGURING", "REQUEUED", "RUNNING", "COMPLETING"]
    queue = {f"1_{n}": state for n, state in enumerate(states)}
    monkeypatch.setattr("geomix.studies.slurm._queue", lambda: queue)
    (tmp_path / "jobs.json").write_text(json.dumps({f"m{n}": f"1_{n}" for n in range(6)}))
    found = Slurm(tmp_path, "study", {}, None).running()
    assert found == dict.fromkeys(["m0", "m1", "m2"], "queued") | dict.fromkeys(
        ["m3", "m4"], "running"
    )


@pytest.mark.parametrize(
    ("restarts", "begun", "way"),
    [("", True, "--out"), ("1", True, "--resume"), ("1", False, "--out")],
)
def test_a_job_becomes_the_training(
    desk: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, begun: bool, way: str
) -> None:
    became: list[Sequence[str]] = []
    monkeypatch.setattr("os.execv", lambda _, line: became.append(line))
    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)  # SLURM put it back into the queue
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS")
    (desk / "run").mkdir()
    if begun:
        (desk / "run/resolved.json").write_text("{}")
    become_training("c.yaml", "run", "run.log", resume=False)
    assert became == [command("c.yaml", "run", way == "--resume")]
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert (desk / "run.log").read_text() == f"$ {shlex.join(became[0])}\n"


def test_a_member_is_begun_or_gone_on_with() -> None:
    assert command("c.yaml", "d", False)[-4:] == ["train", "c.yaml", "--out", "d"]
    assert command("c.yaml", "d", True)[-4:] == ["train", "c.yaml", "--resume", "d"]


@pytest.mark.parametrize(("arm", "folder", "says"), [("", "", ""), ("a", "arms/a", "a: ")])
def test_a_terminal_shows_where_each_member_is(
    desk: Path, arm: str, folder: str, says: str
) -> None:
    members = study(desk, "seeds: [0, 1, 2]").members
    screen = io.StringIO()
    with Board(Console(file=screen, force_terminal=True, width=80), members) as board:
        run = members[0].run
        with run.reporting():
            run.set_status("running", **({"arm": arm} if arm else {}))
            run.resolved_file.write_text("{}")
            (run.path / folder).mkdir(parents=True, exist_ok=True)
            metrics = run.path / folder / "metrics.jsonl"
            metrics.write_text('{"event": "step", "stage": 1, "step": 40}\n')
            board.ended(members[2], Outcome("failed", "no data"))
            board.update({"seed=0": "running", "seed=1": "queued"}, 4)
    shown = screen.getvalue()
    assert "seed=2: failed: no data  [1/3]" in shown
    assert re.search(rf"seed=0 +{says}stage 2, step 40", shown)
    assert "0 done, 1 running, 1 queued, 1 failed, 4 left" in shown


# Whole sweeps, through the command line.


def test_what_is_complete_is_not_run_again_and_a_failure_stops_nobody(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_members_here(monkeypatch)
    text = "runs: {bad: {stages.0.data: {source: mine.csv}}, good: {}}"
    study(desk, text)
    assert sweep("--dry-run").exit_code == 0
    assert not (desk / "runs").exists()
    result = sweep("--json")
    assert result.exit_code == 1, result.stderr
    found = facts(result)
    assert [one["state"] for one in found.values()] == ["failed", "done"]
    assert "mine.csv: no such file" in found["bad"]["why"]
    assert f"runs/study/bad: failed: {found['bad']['why']}; see runs/study/bad.log" in result.stderr
    (row,) = found["good"]["retention"]
    (end,) = [
        one for one in lines_of(desk / "runs/study/good", "evaluation") if one["moment"] == "end"
    ]
    assert (row["set"], row["exact_match"]) == ("D_A", end["exact_match"])

    (desk / "mine.csv").write_text("prompt,target\n" + "".join(f"q{n},a{n}\n" for n in range(8)))
    log = (desk / "runs/study/good.log").read_text()
    study(desk, text.replace("0.data: {source: mine.csv}", "0.data: {source: mine.csv, limit: 8}"))
    result = sweep()
    assert result.exit_code == 0, result.output
    assert "good: done (already)" in result.stdout
    assert (desk / "runs/study/good.log").read_text() == log
    assert len((desk / "runs/study/bad.log").read_text().split("$ ")) == 3

    environment = desk / "runs/study/good/env.json"
    assert "different environments" not in result.stderr
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "threads": 99}))
    line = "runs/study: members computed in different environments: threads"
    assert f"{line} {torch.get_num_threads()} (bad), 99 (good)" in sweep().stderr

    metrics = (desk / "runs/study/good/metrics.jsonl").read_bytes()
    result = sweep("--set", "train.lr=1")
    assert result.exit_code == 2
    assert "runs/study/good: train.lr was 5e-05, is 1.0" in result.stderr
    assert (desk / "runs/study/good/metrics.jsonl").read_bytes() == metrics


SAVES_WHEN_ASKED = f"""
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit({EXIT}))
os.kill(os.getppid(), signal.SIGTERM)
signal.alarm(20)
signal.pause()
"""


def test_a_sweep_that_is_asked_to_end_asks_its_members(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a training is a process that has the sweep asked, and ends when it is asked."""
    line = [sys.executable, "-c", SAVES_WHEN_ASKED]
    monkeypatch.setattr("geomix.studies.local.command", lambda *_: line)
    study(desk, "seeds: [0, 1]")
    result = sweep("--json")
    assert result.exit_code == EXIT, result.output
    assert [one["state"] for one in facts(result).values()] == ["interrupted", "left"]
    assert not (desk / "runs/study/seed=1").exists()


@pytest.mark.slow
def test_a_sweep_that_is_asked_to_end_goes_on_when_run_again(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process of its own first, whose members are processes too."""
    text = "runs: {long: {stages.0.stop.epochs: 100}, short: {}}\nset: {evaluate.epochs: 0}"
    study(desk, text)
    line = [sys.executable, "-m", "geomix", "sweep", "study.yaml"]
    first = desk / "runs/study/long"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(lines_of(first, "step")) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT, out
    saved = len(lines_of(first, "step"))
    assert 5 <= saved < 200
    assert not (desk / "runs/study/short").exists()

    train_members_here(monkeypatch)
    result = sweep("--json")
    assert result.exit_code == 0, result.stderr
    assert [one["state"] for one in facts(result).values()] == ["done", "done"]
    assert [one["step"] for one in lines_of(first, "step")] == list(range(1, 201))
    assert f"after step {saved}\n" in (desk / "runs/study/long.log").read_text()


def test_foreign_files_are_left_alone(desk: Path) -> None:
    study(desk, "seeds: [0]")
    (desk / "runs/study/seed=0").mkdir(parents=True)
    (desk / "runs/study/seed=0/thesis.tex").write_text("mine")
    result = sweep()
    assert result.exit_code == 2
    assert "runs/study/seed=0: no run of geomix; it holds thesis.tex" in result.stderr


def test_without_slurm_there_is_a_line(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(desk, "seeds: [0]")
    assert sweep("--no-wait").stderr.startswith("geomix: --no-wait: only SLURM's jobs go on alone")
    monkeypatch.setenv("PATH", str(desk))
    result = sweep("--executor", "slurm")
    assert result.exit_code == 2
    assert result.stderr.startswith("geomix: squeue: not found; is this a SLURM cluster?")


def test_a_sweep_stands_for_its_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a pattern names all that lies in its folder, and where its study is named."""
    found = study(desk, "seeds: [0, 1, 2]\nout: swept")
    show = ["show", "study.yaml"]
    early = CliRunner().invoke(main, show)
    assert (
        early.stderr == "geomix: study.yaml: a study; its sweep's folder swept is not there yet\n"
    )
    (desk / "swept/_sweep").mkdir(parents=True)
    (desk / "swept/_sweep/study.yaml").write_text(found.text)
    with pytest.raises(UserError, match="no run of this sweep has begun"):
        named_runs([Path("swept")])
    for seed in (0, 1):
        run = found.members[seed].run
        run.path.mkdir()
        run.resolved_file.write_text(json.dumps({"config": {"seed": seed, "stages": []}}))
        (desk / f"swept/seed={seed}.log").touch()
    names = ["seed=0", "seed=1"]
    assert [run.name for run in named_runs([Path("swept")])] == names
    assert capsys.readouterr().err == ""
    assert [run.name for run in named_runs(sorted(Path("swept").glob("*")))] == names
    told = "geomix: swept: left out, no runs: _sweep, seed=0.log, seed=1.log\n"
    assert capsys.readouterr().err == told
    rows = [line.split() for line in CliRunner().invoke(main, show).stdout.splitlines()]
    assert ["seed=2", "not", "begun"] in rows
    assert ["seed=0", "not", "started"] in rows
    table = Console(width=80)
    with table.capture() as captured:
        table.print(results_table(found.members, {m.name: Outcome("left") for m in found.members}))
    assert captured.get().count("not begun") == 3
