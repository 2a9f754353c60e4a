"""A recording that is killed leaves whole snapshots only, and every one that it told of.

`make torture-record` kills a training that records and `geomix record` 200 times, at random moments
of the clock; the ordinary tests kill each before, within and after the writing of a snapshot, and
then by the clock. After each kill the same folder is gone on with, until it is done, and
then compared with one that was left alone.
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
  - data: {source: kvr, limit: 4}
    stop: {steps: 2}
  - data: {source: arithmetic, limit: 6}
    stop: {steps: 3}
train: {lr: 1e-2, batch_size: 3}
record: {at: ["every:1"], probes: 2}
checkpoint: {steps: 1, keep: 9}
evaluate: {epochs: 0}
"""
"""Two steps and three, each of them recorded."""

WRITING: list[dict[str, Any]] = [
    {"at": [(r"write \S+stage0-step000000\.h5\.partial", 1, signal.SIGKILL)]},
    {"torn": (r"write \S+stage0-step000002\.h5\.partial", 1, 100)},
    {"at": [(r"rename \S+stage1-step000001\.h5\.partial", 1, signal.SIGKILL)]},
    {"torn": (r"write \S+stage1-step000002\.h5\.partial", 1, 20_000)},
    {"at": [(r"remove \S+stage1-step000002\.h5\.partial", 2, signal.SIGKILL)]},
]
"""Before a snapshot is opened, early and late within it, before and after it has its name."""


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
        took = 0.0
        while self.kills < kills:
            fresh()
            start = time.monotonic()
            for _ in range(10 if took else 0):
                if not self.is_killed(after=choose.uniform(0.05, took)):
                    break
            self.finish(contents(whole))
            took = took or time.monotonic() - start

    def kill_at(
        self, moments: list[dict[str, Any]], fresh: Callable[[], object], whole: Run
    ) -> None:
        """Kill at each of the moments, one after the other, and then by the clock, in one run."""
        fresh()
        assert all(self.is_killed(**moment) for moment in moments)
        self.is_killed(after=random.Random(self.name).uniform(0.2, 0.6))
        self.finish(contents(whole))

    def is_killed(self, **how: Any) -> bool:
        """Begin, or go on; whether it was killed before it came to its end."""
        done = self.geomix(*self.again(), **how)
        if done.status not in (-signal.SIGKILL, -signal.SIGXFSZ):
            assert done.status == 0, done.err
            return False
        self.kills += 1
        self.tally["kills"] += 1
        self.look(done.out)
        return True

    def finish(self, expected: dict[str, bytes]) -> None:
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
        found = contents(self.run)
        if found != expected:
            names = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
            self.lost(f"ends otherwise: {names}")

    def lost(self, what: str) -> None:
        self.losses.append(what)
        self.tally["losses"] += 1


def contents(run: Run) -> dict[str, bytes]:
    """Every snapshot of a run, as it is on disk, by its name."""
    return {path.name: path.read_bytes() for path in run.snapshots()}


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


Kind = tuple[Tortured, Callable[[], object], Run]


def online(geomix: Any, tally: Counter[str], command: list[str]) -> Kind:
    whole = Run(geomix.folder / "whole-online")
    if not whole.path.exists():
        assert geomix(*command, "whole-online").status == 0
        assert len(whole.snapshots()) == 6
    go_on = ["train", "--resume", "online", "--quiet"]
    tortured = Tortured(geomix, tally, "online", [*command, "online"], go_on, told_online)
    return tortured, lambda: shutil.rmtree(tortured.run.path, ignore_errors=True), whole


def afterwards(geomix: Any, tally: Counter[str], command: list[str]) -> Kind:
    """Of a run that was killed at its end, so that it has checkpoints within its last stage."""
    stop = [("1-arithmetic/checkpoints/final", 1, signal.SIGKILL)]
    if not (geomix.folder / "source").exists():
        done = geomix(*command, "source", "--set", "record=null", at=stop)
        assert done.status == -signal.SIGKILL, done.err
    asked = ["--set", "record.probes=2"]
    whole = Run(geomix.folder / "whole-afterwards")
    if not whole.path.exists():
        shutil.copytree(geomix.folder / "source", whole.path)
        done = geomix("record", whole.path.name, *asked)
        assert done.status == 0, done.err
        steps = [path.stem for path in whole.snapshots()]
        assert steps[:4] == [f"stage{s}-step00000{n}" for s, n in ((0, 0), (0, 2), (1, 1), (1, 2))]
    record = ["record", "afterwards", *asked]
    tortured = Tortured(geomix, tally, "afterwards", record, record, told_afterwards)

    def fresh() -> None:
        shutil.rmtree(tortured.run.path, ignore_errors=True)
        shutil.copytree(geomix.folder / "source", tortured.run.path)

    return tortured, fresh, whole


@pytest.mark.parametrize("way", [online, pytest.param(afterwards, marks=pytest.mark.slow)])
def test_a_kill_around_the_writing_of_a_snapshot_leaves_whole_ones(
    geomix: Any, tally: Counter[str], command: list[str], way: Callable[..., Kind]
) -> None:
    tortured, fresh, whole = way(geomix, tally, command)
    tortured.kill_at(WRITING, fresh, whole)
    assert not tortured.losses, "\n".join(tortured.losses)


@pytest.mark.parametrize("way", [online, afterwards])
@pytest.mark.torture
def test_a_kill_at_any_moment_leaves_whole_snapshots(
    geomix: Any, tally: Counter[str], command: list[str], way: Callable[..., Kind]
) -> None:
    tortured, fresh, whole = way(geomix, tally, command)
    tortured.torture(100, fresh, whole)
    assert tortured.kills >= 100
    assert not tortured.losses, "\n".join(tortured.losses)
