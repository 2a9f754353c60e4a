"""A run that is killed, wherever that is, and gone on with ends as if it had not been, to the bit.

`make torture` kills it at every step, before every single change that it makes to a file, in the
middle of every file that it writes, several times in a row and at moments of the clock; and it
damages every file of a checkpoint in every way. So it does with an export, which the same command
makes again. The ordinary tests do two dozen of these, several in each run: a kill costs them only
what has to be done again.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

RUN = """stages:
  - data: {source: kvr, limit: 6}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 5}
  - data: {source: arithmetic, limit: 9}
    replay: 0.5
    stop: {epochs: 5}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, "every:10"], probes: 3}
checkpoint: {steps: 3}
"""
"""4 steps × 5 epochs in each stage: 20 + 20."""

SHORT = """stages:
  - data: {source: kvr, limit: 2}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 2}
    replay: 0.5
    stop: {epochs: 2}
train: {lr: 1e-2, batch_size: 2}
record: {at: [boundaries, 1], probes: 2, activations: 0}
checkpoint: {steps: 1, keep: 1}
"""
"""2 steps and then 4: everything that a run does to files, and little else."""

ARMS = SHORT + "arms: {one: {}, two: {seed: 1}}\n"

LITERAL = SHORT + "paper_literal: true\n"

VARIANTS = {
    "adapters": "lora: {rank: 2, dropout: 0.1}",
    "a part": "trainable: ['layers:1', '*.ln_f.*']",
    "shares": "update_shares: true",
    "pure bfloat16": "precision: bf16-pure",
    "one schedule": "schedule: wsd, schedule_over: run",
    "pieces": "micro_batch_size: 1, gradient_checkpointing: true",
}
"""Ways to train that have a state of their own."""

ALL_WAYS = (
    f"{VARIANTS['adapters']}, {VARIANTS['pieces']}, {VARIANTS['one schedule']}",
    f"{VARIANTS['a part']}, {VARIANTS['shares']}, {VARIANTS['pure bfloat16']}, "
    f"{VARIANTS['one schedule']}",
)
"""All of them in one run, by the keys of each stage."""

KILLS = {-signal.SIGKILL, -signal.SIGXFSZ}


@dataclass
class Killed:
    """A configuration, what it gives when it is left alone, and what kills did to it.

    Attributes:
        geomix: the command line, see `conftest`.
        name: of the configuration.
        tally: counts kills and losses of the whole session.
        model: what is trained.
        tree: hash of every file of the run that was left alone.
        changes: what that did to files, in order.
        kills: how many there were.
        losses: what was lost, a line each.
    """

    geomix: Any
    name: str
    tally: Counter[str]
    model: str
    tree: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    kills: int = 0
    losses: list[str] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """The folder of the run that was left alone."""
        return f"whole-{self.name}"

    def arguments(self, out: str) -> list[str]:
        return ["train", f"{self.name}.yaml", "--out", out, "--set", f"model={self.model}"]

    def alone(self, text: str) -> Killed:
        (self.geomix.folder / f"{self.name}.yaml").write_text(text)
        done = self.geomix(*self.arguments(self.whole))
        assert done.status == 0, done.err
        self.tree, self.changes = self.geomix.tree(self.whole), done.changes
        return self

    def numbers(self, pattern: str) -> list[int]:
        """The places, from 1, of the changes that hold the text."""
        return [place for place, change in enumerate(self.changes, 1) if pattern in change]

    def number(self, pattern: str, count: int = 1) -> int:
        """The place, from 1, of the count-th change that holds the text."""
        return next(itertools.islice(self.numbers(pattern), count - 1, None))

    def steps(self) -> list[int]:
        """The places of the lines of steps in `metrics.jsonl`."""
        lines = (self.geomix.folder / self.whole / "metrics.jsonl").read_text().splitlines()
        places = self.numbers(f"write {self.whole}/metrics.jsonl")
        return [place for place, line in zip(places, lines, strict=True) if '"step",' in line]

    def kill(self, *numbers: int, torn: int | None = None, after: float | None = None) -> None:
        """Kill it at its `numbers[0]`-th change, go on and kill it at the next, … and compare.

        Args:
            numbers: of the changes, from 1.
            torn: bytes: each kill is not there, but in the next file that becomes longer.
            after: seconds after which it is killed, where no change is named.
        """
        self.clear()
        command = self.arguments("killed")
        for number in numbers or [0]:
            how: dict[str, Any] = {"after": after}
            if number:
                how = (
                    {"at": [(".", number, signal.SIGKILL)]}
                    if torn is None
                    else {"torn": (".", number, torn)}
                )
            done = self.geomix(*command, **how)
            self.kills += done.status in KILLS
            self.tally["kills"] += done.status in KILLS
            if not (self.geomix.folder / "killed" / "resolved.json").exists():
                self.clear()  # nothing is done yet
            command = self.going_on()
        self.compare(f"{numbers} {[self.changes[n - 1 :][:1] for n in numbers]} {torn} {after}")

    def kill_along(self, points: Sequence[tuple[str, int, int | None]]) -> None:
        """Kill it at each of the points, one after the other, and compare what it comes to.

        Args:
            points: pattern of a change, its count since the process began, and the bytes of the
                next file after which it is killed there; None: before the change.
        """
        self.clear()
        command = self.arguments("killed")
        for pattern, count, torn in points:
            at = (pattern, count, signal.SIGKILL if torn is None else torn)
            done = self.geomix(*command, **({"at": [at]} if torn is None else {"torn": at}))
            assert done.status in KILLS, (pattern, count, done)
            self.kills += 1
            self.tally["kills"] += 1
            command = self.going_on()
        self.compare(str(points))

    def clear(self) -> None:
        shutil.rmtree(self.geomix.folder / "killed", ignore_errors=True)

    def going_on(self) -> list[str]:
        if (self.geomix.folder / "killed").exists():
            return ["train", "--resume", "killed"]
        return self.arguments("killed")

    def compare(self, what: str) -> str:
        """Go on to the end, note what differs from the run that was left alone; what it said."""
        done = self.geomix(*self.going_on())
        found = self.geomix.tree("killed")
        names = [n for n in {**self.tree, **found} if self.tree.get(n) != found.get(n)]
        status = self.geomix.folder / "killed" / "status.json"
        if names or done.status or not status.exists() or '"done"' not in status.read_text():
            self.losses.append(f"{self.name} {what}: {done.status} {done.err} {names}")
            self.tally["losses"] += 1
        return str(done.out)

    def nothing_is_lost(self) -> None:
        assert not self.losses, "\n".join(self.losses)


HUB = "nobody/dropout"
TEXTS = {"run": RUN, "short": SHORT, "hub": RUN, "short-hub": SHORT, "literal-hub": LITERAL}
TEXTS |= {
    name: SHORT.replace("batch_size: 2", f"batch_size: 2, {keys}")
    for name, keys in VARIANTS.items()
}


def of_stages(first: str, second: str) -> str:
    """`SHORT` with keys of each stage's own."""
    before, middle, rest = SHORT.split("    stop: ")
    one, other = (f"    train: {{{keys}}}\n    stop: " for keys in (first, second))
    return before + one + middle + other + rest


TEXTS["all ways"] = of_stages(*ALL_WAYS)


@pytest.fixture(scope="module")
def alone(geomix: Any, tally: Counter[str]) -> Callable[[str], Killed]:
    """Gives a configuration's run, left alone once; no kill is counted yet."""
    known: dict[str, Killed] = {}

    def of(name: str) -> Killed:
        if name not in known:
            model = HUB if "hub" in name else str(geomix.model)
            known[name] = Killed(geomix, name, tally, model).alone(TEXTS[name])
        run = known[name]
        return Killed(geomix, name, tally, run.model, run.tree, run.changes)

    return of


@pytest.fixture
def run(alone: Callable[[str], Killed]) -> Killed:
    return alone("run")


@pytest.fixture
def short(alone: Callable[[str], Killed]) -> Killed:
    return alone("short")


FIRST, SECOND = "stages/0-kvr", "stages/1-arithmetic"
STEP = "checkpoints/step-00000"
LINE = r"write killed/metrics\.jsonl"
KILLED: dict[str, list[tuple[str, int, int | None]]] = {
    "before": [  # something is done
        (f"rename killed/{FIRST}/eval/epoch-001", 1, None),
        (f"rename killed/{FIRST}/{STEP}1.partial ", 1, None),
        (f"rename killed/{FIRST}/checkpoints/final.partial ", 1, None),
        (LINE, 3, None),  # the first of the second stage; two are of the end of the first
        ("write killed/records/snapshots/stage1-step000001", 1, None),
        (f"rename killed/{SECOND}/{STEP}2.partial/position", 1, None),
        (f"rename killed/{SECOND}/{STEP}2.partial ", 1, None),
        (f"rmdir killed/{SECOND}/{STEP}3.partial", 1, None),
        ("rename killed/status.json", 1, None),
    ],
    "after": [  # it was done
        (LINE, 5, None),  # the second step's: the first one's checkpoint is there
        (f"rename killed/{FIRST}/{STEP}1 ", 1, None),  # the stage's end is there
        ("remove killed/records/snapshots/stage1-step000001", 2, None),
        (f"rename killed/{SECOND}/{STEP}1 ", 1, None),
        (f"mkdir killed/{SECOND}/{STEP}3.partial ", 1, None),
        (f"mkdir killed/{SECOND}/{STEP}3.partial ", 1, None),  # again in the same epoch
        (LINE, 4, None),  # of the end's second set
    ],
    "within": [  # so many bytes of a file are written
        (f"mkdir killed/{FIRST}/{STEP}1.partial ", 1, 500),  # its configuration
        (f"mkdir killed/{FIRST}/checkpoints/final.partial ", 1, 100_000),  # the weights
        ("remove model.safetensors", 1, None),  # of an old one that is being removed
        ("write killed/records/snapshots/stage1-step000001", 1, 7),
        (f"mkdir killed/{SECOND}/{STEP}2.partial ", 1, 172_050),  # the optimiser's state
        (LINE, 2, 7),
    ],
}


@pytest.mark.parametrize("moments", KILLED)
def test_a_killed_run_ends_as_if_it_had_not_been(short: Killed, moments: str) -> None:
    short.kill_along(KILLED[moments])
    short.nothing_is_lost()


def test_what_a_model_of_the_hub_comes_to_is_that_of_a_local_one(
    alone: Callable[[str], Killed],
) -> None:
    """A checkpoint is a local folder; what θ_0's place left in its tokenizer must not differ."""
    hub, local = alone("short-hub"), alone("short")
    final = f"{FIRST}/checkpoints/final/"
    kept = [name for name in local.tree if name.startswith(final)]
    assert len(kept) > 5
    assert {name: hub.tree[name] for name in kept} == {name: local.tree[name] for name in kept}


def test_the_papers_code_to_the_letter_survives_two_kills(alone: Callable[[str], Killed]) -> None:
    """With weights in bfloat16, of the hub."""
    literal = alone("literal-hub")
    first = literal.steps()[1]  # what resumes it counts its changes anew
    literal.kill(first, literal.number("1-arithmetic/eval/epoch-001") - first)
    assert literal.kills == 2
    literal.nothing_is_lost()


def test_ways_to_train_survive_a_kill_in_each_stage(alone: Callable[[str], Killed]) -> None:
    """Each stage trains in ways of its own, and has a checkpoint within it."""
    run = alone("all ways")
    run.kill_along([(LINE, 5, None), (LINE, 8, None)])  # of the second and of the third step
    run.nothing_is_lost()


@pytest.mark.torture
@pytest.mark.parametrize("variant", VARIANTS)
def test_ways_to_train_survive_kills_at_every_step(
    alone: Callable[[str], Killed], variant: str
) -> None:
    run = alone(variant)
    for number in run.steps():
        run.kill(number)
    assert run.kills == len(run.steps())
    run.nothing_is_lost()


@pytest.mark.torture
def test_a_kill_at_every_step_changes_nothing(run: Killed) -> None:
    """After the step is done, before it is noted."""
    steps = run.steps()
    assert len(steps) == 40
    for number in steps:
        run.kill(number)
    assert run.kills == 40
    run.nothing_is_lost()


@pytest.mark.torture
def test_a_model_of_the_hub_at_every_fifth_line(alone: Callable[[str], Killed]) -> None:
    hub = alone("hub")
    lines = hub.numbers(f"write {hub.whole}/metrics.jsonl")[::5]
    for number in lines:
        hub.kill(number)
    assert hub.kills == len(lines)
    hub.nothing_is_lost()


def changing(known: Killed) -> list[int]:
    """The changes that change something: not the making of a folder that was made before."""
    first = {change: number for number, change in reversed([*enumerate(known.changes, 1)])}
    return [n for n, c in enumerate(known.changes, 1) if "mkdir" not in c or first[c] == n]


@pytest.mark.torture
def test_a_kill_before_any_change_to_a_file_changes_nothing(short: Killed) -> None:
    """Before and after every renaming and removal, too: after one is before the next."""
    numbers = changing(short)
    assert len(numbers) > 150
    for number in numbers:
        short.kill(number)
    assert short.kills == len(numbers)
    short.nothing_is_lost()


@pytest.mark.torture
def test_a_kill_in_the_middle_of_any_file_changes_nothing(short: Killed) -> None:
    """After 7 bytes of what is written next, then within the weights of every checkpoint."""
    writes = [n for n in changing(short) if "write" in short.changes[n - 1]]
    for number in writes:
        short.kill(number, torn=7)
    folders = [n for n in changing(short) if "mkdir" in short.changes[n - 1]]
    for number in [n for n in folders if ".partial" in short.changes[n - 1]]:
        for torn in (1000, 20_000, 172_050):  # the tokenizer, the weights, the optimiser's state
            short.kill(number, torn=torn)
    assert short.kills > len(writes)
    short.nothing_is_lost()


@pytest.mark.torture
def test_kills_of_kills_and_at_moments_of_the_clock(short: Killed, run: Killed) -> None:
    """Up to five in a row, and at any instruction."""
    draw = random.Random(0)
    for _ in range(30):
        short.kill(*(draw.randint(1, 90) for _ in range(draw.randint(2, 5))))
    for _ in range(30):
        run.kill(after=draw.uniform(0.1, 1.2))
    assert short.kills > 60
    short.nothing_is_lost()
    run.nothing_is_lost()


@pytest.mark.torture
def test_arms_survive_too(geomix: Any, tally: Counter[str]) -> None:
    arms = Killed(geomix, "arms", tally, str(geomix.model)).alone(ARMS)
    numbers = changing(arms)[::9]
    for number in numbers:
        arms.kill(number)
    assert arms.kills == len(numbers)
    arms.nothing_is_lost()


@pytest.mark.torture
@pytest.mark.parametrize("form", ["parquet", "numpy"])
def test_a_killed_export_is_made_by_the_same_command(
    geomix: Any, tally: Counter[str], form: str
) -> None:
    """Of two arms: before any change, in the middle of any file, and at moments of the clock."""
    run, out = Killed(geomix, f"for-{form}", tally, str(geomix.model)).alone(ARMS), "exported"
    command = ["export", run.whole, "--format", form, "--to"]
    began = time.monotonic()
    undisturbed = geomix(*command, "undisturbed")
    took = time.monotonic() - began
    assert undisturbed.status == 0, undisturbed.err
    expected = geomix.tree("undisturbed")
    draw = random.Random(0)
    hows: list[dict[str, Any]] = [{"after": draw.uniform(0.01, took)} for _ in range(30)]
    for number in range(1, len(undisturbed.changes) + 1):
        hows += [{"at": [(".", number, signal.SIGKILL)]}]
        hows += [{"torn": (".", number, size)} for size in (7, 2_000)]
    finished = 0
    for how in hows:
        if geomix(*command, out, **how).status in KILLS:
            run.kills += 1
            tally["kills"] += 1
            if (geomix.folder / out).exists() and geomix.tree(out) == expected:
                finished += 1  # killed when it was to say so
            else:
                done = geomix(*command, out)
                if done.status or geomix.tree(out) != expected:
                    run.losses.append(f"{form} {how}: {done.status} {done.err}")
        if [*geomix.folder.glob(f"{out}*")] != [geomix.folder / out]:
            run.losses.append(f"{form} {how}: something is left over")
        shutil.rmtree(geomix.folder / out)
    shutil.rmtree(geomix.folder / "undisturbed")
    tally["losses"] += len(run.losses)
    assert run.kills > len(undisturbed.changes)
    assert finished <= 2
    run.nothing_is_lost()


@pytest.mark.torture
@pytest.mark.parametrize("limit", [10, 60, 300, 700, 1_500, 10_000, 100_000, 172_050, 250_000])
def test_a_file_that_cannot_grow_loses_nothing(short: Killed, limit: int) -> None:
    """As on a full disk: one line, status 2, and it goes on when there is space."""
    short.clear()
    done = short.geomix(*short.arguments("killed"), limit=limit)
    assert done.status == 2
    assert [line.startswith("geomix: ") for line in done.err.splitlines()] == [True], done.err
    short.tally["full disks"] += 1
    if not (short.geomix.folder / "killed" / "resolved.json").exists():
        short.clear()
    short.compare(f"limit {limit}")
    short.nothing_is_lost()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit in the middle of the file."""
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "cut": cut,
    "flipped": flipped,
    "emptied": emptied,
    "removed": None,
}


@pytest.fixture
def stopped(run: Killed) -> Path:
    """The run as a kill in its second stage leaves it: two checkpoints within, one before."""
    folder: Path = run.geomix.folder / "stopped"
    shutil.rmtree(folder, ignore_errors=True)
    command = [*run.arguments("stopped")]
    run.geomix(*command, at=[(".", run.steps()[27], signal.SIGKILL)])
    return folder


@pytest.mark.torture
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_newest_checkpoint_is_noticed(
    run: Killed, stopped: Path, damage: str
) -> None:
    newest = Path(SECOND, "checkpoints", "step-000006")
    files = sorted(file.name for file in (stopped / newest).iterdir())
    assert {"manifest.json", "model.safetensors", "optimiser.safetensors"} < set(files)
    for name in files:
        run.clear()
        shutil.copytree(stopped, run.geomix.folder / "killed")
        file = run.geomix.folder / "killed" / newest / name
        change = DAMAGES[damage]
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))
        run.tally["damaged checkpoints"] += 1
        said = run.compare(f"{name} {damage}").splitlines()
        assert said[0].startswith(f"skipped: killed/{newest}: "), (name, said)
        assert said[1] == "killed: goes on in stage 2, arithmetic, after step 3"
    run.nothing_is_lost()
