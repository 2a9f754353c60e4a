"""A recording that is killed leaves whole snapshots only, and every one that it told of.

`make torture-record` kills a training that records and `geomix record` 200 times, at random moments
of the clock; the ordinary tests do a dozen of these. After each kill the same folder is gone on
with, until it is done, and then compared with one that was left alone.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.api import Run
from geomix.snapshots.file import file_name, read_snapshot
from geomix.util.errors import UserError

RUN = """stages:
  - data: {source: kvr, limit: 6}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 6}
    stop: {steps: 5}
train: {lr: 1e-2, batch_size: 3}
record: {at: ["every:1"], probes: 3, gradients: true, modules: ["*.mlp"]}
checkpoint: {steps: 2, keep: 9}
evaluate: {epochs: 0}
"""
"""Four steps and five, each of them recorded; the last checkpoint is not at a stage's end."""


class Tortured:
    """A command that records, killed again and again.

    Args:
        geomix: the command line, see `conftest`.
        tally: counts of the whole session.
        name: of the run's folder, and of the untouched one, behind `whole-`.
        begin: the command that begins.
        go_on: the command that goes on.
        told: the names of the snapshots that the killed command said are on disk.
    """

    def __init__(
        self,
        geomix: Any,
        tally: Counter[str],
        name: str,
        begin: list[str],
        go_on: list[str],
        told: Callable[[Run, str], set[str]],
    ) -> None:
        self.geomix, self.tally, self.name = geomix, tally, name
        self.begin, self.go_on, self.told = begin, go_on, told
        self.run = Run(geomix.folder / name)
        self.losses: list[str] = []
        self.kills = 0

    def again(self) -> list[str]:
        if self.run.resolved_file.exists():
            return self.go_on
        shutil.rmtree(self.run.path, ignore_errors=True)  # it was killed before it was a run
        return self.begin

    def torture(self, kills: int, fresh: Callable[[], object], whole: Run) -> None:
        """Kill until there were so many kills, each at a random moment of what is left to do."""
        choose = random.Random(self.name)
        expected = {path.name: path.read_bytes() for path in whole.snapshots()}
        fresh()
        start = time.monotonic()
        assert self.geomix(*self.again()).status == 0
        took = time.monotonic() - start
        self.compare(expected)
        while self.kills < kills:
            fresh()
            for _ in range(10):
                done = self.geomix(*self.again(), after=choose.uniform(0.05, took))
                if done.status != -signal.SIGKILL:
                    assert done.status == 0, done.err
                    break
                self.kills += 1
                self.tally["kills"] += 1
                self.look(done.out)
            done = self.geomix(*self.again())
            if done.status:
                self.lost(f"cannot go on: {done.err}")
            else:
                self.compare(expected)

    def look(self, out: str) -> None:
        """What a kill left: whole snapshots, and all that were told of."""
        names = set()
        for path in self.run.snapshots():
            names.add(path.name)
            self.tally["snapshots read"] += 1
            try:
                read_snapshot(path)
                with path.open("rb") as file:
                    assert file.read(8) == b"\x89HDF\r\n\x1a\n"
            except (UserError, AssertionError) as error:
                self.lost(f"{path.name}: {error}")
        told = self.told(self.run, out)
        self.tally["snapshots told of"] += len(told)
        if told - names:
            self.lost(f"told of and not there: {sorted(told - names)}")

    def compare(self, expected: dict[str, bytes]) -> None:
        found = {path.name: path.read_bytes() for path in self.run.snapshots()}
        if found != expected:
            names = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
            self.lost(f"ends otherwise: {names}")

    def lost(self, what: str) -> None:
        self.losses.append(what)
        self.tally["losses"] += 1


def told_online(run: Run, _: str) -> set[str]:
    """A step's line comes before its snapshot; whatever line follows is written after it."""
    if not run.metrics_file.exists():
        return set()
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    steps = [(number, line) for number, line in enumerate(lines) if line["event"] == "step"]
    before = [line for number, line in steps if number < len(lines) - 1]
    told = {file_name(line["stage"], line["step"]) for line in before}
    return told | ({file_name(0, 0)} if steps else set())


def told_afterwards(_: Run, out: str) -> set[str]:
    """The lines are the files, as they are made."""
    lines = [line.removesuffix(": there already") for line in out.splitlines()]
    return {Path(line).name for line in lines}


@pytest.fixture
def command(geomix: Any) -> list[str]:
    (geomix.folder / "record.yaml").write_text(RUN)
    return ["train", "record.yaml", "--quiet", "--set", f"model={geomix.model}", "--out"]


def online(geomix: Any, tally: Counter[str], command: list[str], kills: int) -> Tortured:
    if not (geomix.folder / "whole-online").exists():
        assert geomix(*command, "whole-online").status == 0
    go_on = ["train", "--resume", "online", "--quiet"]
    tortured = Tortured(geomix, tally, "online", [*command, "online"], go_on, told_online)

    def fresh() -> None:
        shutil.rmtree(tortured.run.path, ignore_errors=True)

    tortured.torture(kills, fresh, Run(geomix.folder / "whole-online"))
    return tortured


def afterwards(geomix: Any, tally: Counter[str], command: list[str], kills: int) -> Tortured:
    """Of a run that was killed at its end, so that it has checkpoints within its last stage."""
    stop = [("1-arithmetic/checkpoints/final", 1, signal.SIGKILL)]
    if not (geomix.folder / "source").exists():
        done = geomix(*command, "source", "--set", "record=null", at=stop)
        assert done.status == -signal.SIGKILL, done.err
    asked = ["--set", "record.probes=3", "--set", "record.gradients=true"]
    asked += ["--set", "record.modules=['*.mlp']"]
    whole = Run(geomix.folder / "whole-afterwards")
    if not whole.path.exists():
        shutil.copytree(geomix.folder / "source", whole.path)
        done = geomix("record", whole.path.name, *asked)
        assert done.status == 0, done.err
        steps = [path.stem for path in whole.snapshots()]
        assert steps[:2] == ["stage0-step000000", "stage0-step000004"]
        assert steps[2:4] == ["stage1-step000002", "stage1-step000004"]
    record = ["record", "afterwards", *asked]
    tortured = Tortured(geomix, tally, "afterwards", record, record, told_afterwards)

    def fresh() -> None:
        shutil.rmtree(tortured.run.path, ignore_errors=True)
        shutil.copytree(geomix.folder / "source", tortured.run.path)

    tortured.torture(kills, fresh, whole)
    return tortured


@pytest.mark.parametrize("way", [online, afterwards])
def test_a_kill_leaves_whole_snapshots(
    geomix: Any, tally: Counter[str], command: list[str], way: Callable[..., Tortured]
) -> None:
    tortured = way(geomix, tally, command, 6)
    assert tortured.kills >= 6
    assert not tortured.losses, "\n".join(tortured.losses)


@pytest.mark.slow
@pytest.mark.parametrize("way", [online, afterwards])
def test_a_hundred_kills_leave_whole_snapshots(
    geomix: Any, tally: Counter[str], command: list[str], way: Callable[..., Tortured]
) -> None:
    tortured = way(geomix, tally, command, 100)
    assert tortured.kills >= 100
    assert not tortured.losses, "\n".join(tortured.losses)


@pytest.mark.parametrize("torn", [100, 20_000])
def test_a_kill_in_the_middle_of_a_snapshot(
    geomix: Any, tally: Counter[str], command: list[str], torn: int
) -> None:
    """100 bytes of it, and much of its gradients, are written when it comes."""
    if not (geomix.folder / "whole-online").exists():
        assert geomix(*command, "whole-online").status == 0
    shutil.rmtree(geomix.folder / "torn", ignore_errors=True)
    done = geomix(*command, "torn", torn=("stage1-step000003.h5.partial", 1, torn))
    assert done.status == -signal.SIGXFSZ
    run, whole = Run(geomix.folder / "torn"), Run(geomix.folder / "whole-online")
    assert [path.stem for path in run.snapshots()][-1] == "stage1-step000002"
    for path in run.snapshots():
        assert path.read_bytes() == (whole.snapshot_folder / path.name).read_bytes()
    assert geomix("train", "--resume", "torn", "--quiet").status == 0
    assert len(run.snapshots()) == 10
    tally["kills"] += 1
