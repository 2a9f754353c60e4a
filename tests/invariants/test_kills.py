"""A run that is killed, wherever that is, and gone on with ends as if it had not been, to the bit.

`make torture` kills it before every single change that it makes to a file: after every step, within
every checkpoint, evaluation and snapshot, before and after every renaming, between the stages.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

RUN = """stages:
  - data: {source: kvr, limit: 6}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 7}
  - data: {source: arithmetic, limit: 5}
    replay: 0.5
    stop: {epochs: 4}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, "every:10"], probes: 3}
checkpoint: {steps: 3}
"""
"""4 steps × 7 epochs, then 3 × 4: 40 in all."""

ARMS = (
    RUN
    + """arms:
  mixed: {stages.0.stop.epochs: 2, stages.1.stop.epochs: 2}
  plain: {stages.0.stop.epochs: 3, stages.1.stop.epochs: 1, stages.0.mix: null}
"""
)


@dataclass
class Killed:
    """A configuration, what it gives when it is left alone, and what kills did to it.

    Attributes:
        geomix: the command line, see `conftest`.
        name: of the configuration.
        tree: hash of every file of the run that was left alone.
        changes: what that did to files, in order.
        kills: how many there were.
        losses: what was lost, a line each.
    """

    geomix: Any
    name: str
    tree: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    kills: int = 0
    losses: list[str] = field(default_factory=list)

    def arguments(self, out: str) -> list[str]:
        model = self.geomix.model
        return ["train", f"{self.name}.yaml", "--out", out, "--set", f"model={model}"]

    def alone(self, text: str) -> None:
        (self.geomix.folder / f"{self.name}.yaml").write_text(text)
        done = self.geomix(*self.arguments("whole"))
        assert done.status == 0, done.err
        self.tree, self.changes = self.geomix.tree("whole"), done.changes

    def number(self, pattern: str, count: int = 1) -> int:
        """The place, from 1, of the count-th change that holds the text."""
        places = (place for place, change in enumerate(self.changes, 1) if pattern in change)
        return next(itertools.islice(places, count - 1, None))

    def kill(self, *numbers: int, after: float | None = None) -> None:
        """Kill it at its `numbers[0]`-th change, go on and kill it at the next, … and compare."""
        out, command = "killed", self.arguments("killed")
        shutil.rmtree(self.geomix.folder / out, ignore_errors=True)
        said = "not yet"
        for number in numbers or [0]:
            at = [(".", number, signal.SIGKILL)] if number else []
            done = self.geomix(*command, at=at, after=after)
            self.kills += done.status == -signal.SIGKILL
            said += done.err
            command = ["train", "--resume", out]
            if not (self.geomix.folder / out / "resolved.json").exists():
                shutil.rmtree(self.geomix.folder / out, ignore_errors=True)  # nothing is done yet
                command = self.arguments(out)
        done = self.geomix(*command)
        found = self.geomix.tree(out)
        names = [n for n in {**self.tree, **found} if self.tree.get(n) != found.get(n)]
        if names or done.status or '"done"' not in self.status(out):
            at_change = [self.changes[n - 1] if n <= len(self.changes) else "" for n in numbers]
            self.losses.append(f"{numbers} {at_change}: {done.status} {done.err} {names}")

    def status(self, out: str) -> str:
        text: str = (self.geomix.folder / out / "status.json").read_text()
        return text

    def report(self) -> None:
        print(f"\n{self.name}: {self.kills} kills, {len(self.losses)} losses")
        assert not self.losses, "\n".join(self.losses)


@pytest.fixture(scope="module")
def run(geomix: Any) -> Killed:
    killed = Killed(geomix, "run")
    killed.alone(RUN)
    return killed


@pytest.fixture
def killed(run: Killed) -> Killed:
    return Killed(run.geomix, run.name, run.tree, run.changes)


METRICS = "write whole/metrics.jsonl"
FINAL = "stages/0-kvr/checkpoints/final"
POINTS: dict[str, Callable[[Killed], list[int]]] = {
    "in a checkpoint": lambda k: [k.number("step-000006.partial/position")],
    "before its renaming": lambda k: [k.number("rename whole/stages/0-kvr/checkpoints/step")],
    "after it": lambda k: [k.number("rename whole/stages/0-kvr/checkpoints/step") + 1],
    "before the stage's end": lambda k: [k.number(f"rename whole/{FINAL}")],
    "after it was renamed": lambda k: [k.number(f"rename whole/{FINAL}") + 1],
    "between the stages": lambda k: [k.number(METRICS, 41)],
    "in an evaluation": lambda k: [k.number("rename whole/stages/0-kvr/eval/epoch-002")],
    "at the end's second set": lambda k: [k.number("rename whole/stages/0-kvr/eval/epoch-007") + 3],
    "before a snapshot": lambda k: [k.number("write whole/records/snapshots/stage0-step000010")],
    "after a snapshot": lambda k: [
        k.number("rename whole/records/snapshots/stage0-step000010") + 1
    ],
    "at the very end": lambda k: [len(k.changes) - 2],
    "twice in one epoch": lambda k: [k.number("step-000015.partial/position"), 8],
    "four times": lambda _: [150, 100, 60, 120],
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_as_if_it_had_not_been(killed: Killed, point: str) -> None:
    numbers = POINTS[point](killed)
    killed.kill(*numbers)
    assert killed.kills == len(numbers)
    killed.report()


def test_a_kill_between_any_two_steps_changes_nothing(killed: Killed) -> None:
    """Before every fourth line of the metrics; the lines are those of steps and evaluations."""
    lines = [n for n, change in enumerate(killed.changes, 1) if change == METRICS]
    assert len(lines) == 3 + (28 + 6 + 3) + (12 + 3 * 2 + 3)
    for number in lines[::4]:
        killed.kill(number)
    assert killed.kills == len(lines[::4])
    killed.report()


@pytest.mark.slow
def test_a_kill_before_any_change_to_a_file_changes_nothing(killed: Killed) -> None:
    for number in range(1, len(killed.changes) + 1):
        killed.kill(number)
    assert killed.kills == len(killed.changes)
    killed.report()


@pytest.mark.slow
def test_kills_of_kills_and_at_moments_of_the_clock(killed: Killed) -> None:
    """Also in the middle of a write, and up to five times."""
    draw = random.Random(0)
    for _ in range(60):
        killed.kill(*(draw.randint(1, 150) for _ in range(draw.randint(2, 5))))
    for _ in range(60):
        killed.kill(after=draw.uniform(0.05, 0.8))
    assert killed.kills > 100
    killed.report()


@pytest.mark.slow
def test_arms_survive_too(geomix: Any) -> None:
    killed = Killed(geomix, "arms")
    killed.alone(ARMS)
    for number in range(1, len(killed.changes) + 1, 2):
        killed.kill(number)
    assert killed.kills == len(range(1, len(killed.changes) + 1, 2))
    killed.report()
