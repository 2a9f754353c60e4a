"""Invariants of the real command line, whatever happens inside."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors import safe_open

from geomix.api import Run
from geomix.cli import main

GEOMIX = str(Path(sys.executable).with_name("geomix"))
CONFIG = """stages:
  - data: {source: kvr, limit: 5}
    stop: {epochs: 1}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 1}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries, 1], probes: 3, mix: &mix {source: random-words, ratio: 2, words: 1}}
evaluate: {epochs: 0}
arms:
  mixed: {stages.0.mix: *mix}
  control: {stages.0.mix: {source: random-words, ratio: 2, words: 1, passage_free: true}}
"""


@dataclass(frozen=True)
class Place:
    """A folder with a configuration in it, where geomix is started."""

    folder: Path
    model: Path

    def geomix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installed command."""
        return subprocess.run(
            [GEOMIX, *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def environment(self) -> dict[str, str]:
        fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
        return {**os.environ, **fixed}

    def train_here(self, name: str) -> None:
        """Train in the process of the tests, in which strings hash otherwise than in the forked."""
        given = ["run.yaml", "--out", str(self.folder / name), "--set", f"model={self.model}"]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with chdir(self.folder):
                done = CliRunner().invoke(main, ["train", *given])
        finally:
            torch.set_num_threads(threads)
        assert done.exit_code == 0, done.output

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}


def make_place(folder: Path, model: Path) -> Place:
    (folder / "run.yaml").write_text(CONFIG)
    return Place(folder, model)


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    return make_place(tmp_path, tiny_model)


WRITES = r"^write (?!\S+/lock)"


@pytest.fixture(scope="module")
def runs(geomix: Any, tiny_model: Path) -> dict[str, Run]:
    """Runs by name: one in the process of the tests, the rest forked off another one.

    Two are killed before they write a file, early and late, and one at a moment of the clock.
    """
    shared = make_place(geomix.folder, tiny_model)
    shared.train_here("recorded")

    def train(name: str, *settings: str, **how: Any) -> Any:
        given = [part for key in (f"model={tiny_model}", *settings) for part in ("--set", key)]
        return geomix("train", "run.yaml", "--out", name, *given, **how)

    begun = time.monotonic()
    again = train("again")
    took = time.monotonic() - begun
    assert again.status == 0, again.err
    assert train("unrecorded", "record=null").status == 0
    assert train("seed", "record=null", "seed=1").status == 0
    total = sum(change.startswith("write") for change in again.changes)
    for name, count in (("event-early", total // 3), ("event-late", 4 * total // 5)):
        killed = train(name, at=[(WRITES, count, signal.SIGKILL)])
        assert killed.status == -signal.SIGKILL
    train("clock", after=took * random.Random(0).uniform(0.1, 0.5))
    return {path.name: Run(path) for path in sorted(shared.folder.iterdir()) if path.is_dir()}


def weights(run: Run) -> dict[str, bytes]:
    """Every safetensors file of a run, byte by byte: trained weights and Adam's moments."""
    found = sorted(run.path.rglob("*.safetensors"))
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in found}


def steps(run: Run) -> list[dict[str, object]]:
    return [line for line in run.metrics() if line["event"] == "step"]


def test_the_same_seed_gives_the_same_bits(runs: dict[str, Run]) -> None:
    """In two processes whose sets and dictionaries of strings hash differently."""
    files = "arms, stages; weights and moments"
    assert len(weights(runs["recorded"])) == 2 * 2 * 2, files
    assert weights(runs["recorded"]) == weights(runs["again"])
    for one, other in zip(runs["recorded"].arms, runs["again"].arms, strict=True):
        assert list(one.metrics()) == list(other.metrics())


def test_recording_changes_no_bit(runs: dict[str, Run]) -> None:
    assert weights(runs["recorded"]) == weights(runs["unrecorded"])
    for one, other in zip(runs["recorded"].arms, runs["unrecorded"].arms, strict=True):
        assert list(one.metrics()) == list(other.metrics())
    assert all(len(arm.snapshots()) == 5 for arm in runs["recorded"].arms)
    assert not any(arm.snapshots() for arm in runs["unrecorded"].arms)


def test_another_seed_gives_other_weights(runs: dict[str, Run]) -> None:
    one, other = weights(runs["unrecorded"]), weights(runs["seed"])
    assert one.keys() == other.keys()
    assert not any(one[name] == other[name] for name in one)


def test_mixed_and_control_take_the_same_steps_on_the_same_examples(runs: dict[str, Run]) -> None:
    """15 examples in threes: 5 steps; the control's weights lie on D_A alone."""
    mixed, control = (steps(arm) for arm in runs["recorded"].arms)
    assert [(s["stage"], s["step"], s["lr"]) for s in mixed] == [
        (s["stage"], s["step"], s["lr"]) for s in control
    ]
    assert [s["step"] for s in mixed if s["stage"] == 0] == list(range(1, 6))
    for with_mix, without in zip(mixed, control, strict=True):
        if with_mix["stage"] == 0:
            assert isinstance(with_mix["weights"], dict)
            assert isinstance(without["weights"], dict)
            assert without["weights"]["D_M"] == 0
            assert bool(with_mix["weights"]["D_A"]) == bool(without["weights"]["D_A"])
    assert mixed[0]["loss"] != control[0]["loss"]


def test_a_run_says_what_it_was(runs: dict[str, Run]) -> None:
    run = runs["seed"]
    given = run.config_file.read_text()
    assert given.endswith(CONFIG)
    assert "# --set seed=1\n" in given
    assert run.resolved()["arms"] == ["mixed", "control"]
    assert [arm.resolved()["config"]["seed"] for arm in run.arms] == [1, 1]
    assert run.resolved()["hash"] != runs["unrecorded"].resolved()["hash"]
    assert [one.status()["state"] for one in (run, *run.arms)] == ["done"] * 3
    environment = json.loads(run.environment_file.read_text())
    assert environment["versions"]["torch"]


def assert_complete(run: Path) -> int:
    """Every file under a final name is whole; the number of those that were read."""
    read = 0
    for path in sorted(run.rglob("*")):
        if any(part.endswith(".partial") for part in path.parts) or path.is_dir():
            continue
        read += 1
        match path.suffix:
            case ".safetensors":
                with safe_open(path, framework="pt") as tensors:
                    assert [tensors.get_tensor(name).shape for name in tensors.keys()]  # noqa: SIM118
                others = {other.name for other in path.parent.iterdir()}
                assert others >= {"model.safetensors", "config.json", "tokenizer.json"}, path
                assert "adam_second_moments.safetensors" in others
            case ".h5":
                with h5py.File(path) as file:
                    assert file.attrs["complete"]
            case ".json":
                json.loads(path.read_text())
            case ".jsonl":
                lines = path.read_text().split("\n")
                assert lines.pop() == ""
                assert all(isinstance(json.loads(line), dict) for line in lines)
            case ".yaml":
                yaml.safe_load(path.read_text())
            case _:
                assert path.name == "lock", path
    return read


def test_a_kill_at_any_moment_leaves_only_whole_files(runs: dict[str, Run]) -> None:
    whole = assert_complete(runs["again"].path)
    assert runs["again"].status()["state"] == "done"
    at_events = [runs["event-early"], runs["event-late"]]
    left = [assert_complete(run.path) for run in at_events]
    assert left[0] < left[1] <= whole, "the kills were at different moments"
    assert [run.status()["state"] for run in at_events] == ["interrupted"] * 2
    assert_complete(runs["clock"].path)
    if runs["clock"].status_file.exists():
        assert runs["clock"].status()["state"] in ("interrupted", "done")


def test_show_says_that_a_killed_run_was_interrupted(runs: dict[str, Run]) -> None:
    run = runs["event-late"]
    shown = Place(run.path.parent, run.path).geomix("show", run.name)
    assert shown.returncode == 0, shown.stderr
    assert "interrupted" in shown.stdout.splitlines()[0]


IMPORTED = """
import sys
from geomix.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
print(status, *(name for name in sys.modules if "." not in name))
"""


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (
            ["--help"],
            {"torch", "transformers", "nnsight", "matplotlib", "h5py", "pydantic", "rich"},
        ),
        (["train", "--help"], {"torch", "transformers", "nnsight", "matplotlib", "h5py"}),
        pytest.param(
            ["train", "run.yaml", "--dry-run"],
            {"nnsight", "matplotlib", "h5py"},
            marks=pytest.mark.slow,  # it needs torch
        ),
        (
            ["train", "run.yaml", "--dry-run", "--set", "stages.0.data.limit=-1"],
            {"torch", "transformers", "nnsight", "matplotlib", "h5py"},
        ),
        (["train", "none.yaml"], {"torch", "transformers", "nnsight", "matplotlib", "h5py"}),
        (["train", "--set", "seed=x"], {"torch", "transformers", "nnsight", "matplotlib", "h5py"}),
        (["show"], {"torch", "transformers", "nnsight", "matplotlib", "h5py"}),
    ],
)
def test_heavy_libraries_wait_until_they_are_needed(
    place: Place, arguments: list[str], heavy: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments],
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status in {"0", "2"}
    assert "click" in modules
    assert not heavy & set(modules)


def test_a_dry_run_counts_and_makes_nothing(desk: Any) -> None:
    desk.write("run.yaml", CONFIG)
    done = desk.run(["train", "run.yaml", "--dry-run", "--set", "model=nobody/model"])
    assert done.exit_code == 0, done.stderr
    counts = done.stdout.split("Cost")[0].splitlines()
    rows = [line.split() for line in counts if "1 kvr" in line or "2 ar" in line]
    assert rows == [
        ["mixed", "1", "kvr", "D_A", "5", "10", "1", "5", "0.01", "3"],
        ["2", "arithmetic", "D_B", "4", "–", "1", "2", "0.01", "2"],
        ["control", "1", "kvr", "D_A", "5", "(10)", "1", "5", "0.01", "3"],
        ["2", "arithmetic", "D_B", "4", "–", "1", "2", "0.01", "2"],
    ]
    assert [path.name for path in desk.folder.iterdir()] == ["run.yaml"]


ALONE = "stages: [{data: kvr}]\n"
BROKEN: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    # name: (file, further arguments, what each line holds)
    "two mistakes": ("modle: x\nstages: [{data: kvrr}]\n", [], ["'model'", "did you mean 'kvr'?"]),
    "no YAML": ("stages: [", [], ["bad.yaml:1"]),
    "empty": ("", [], ["mapping"]),
    "list": ("- 1\n", [], ["mapping"]),
    "other bytes": (b"\xff", [], ["cannot be read"]),
    "duplicate": (ALONE + "seed: 1\nseed: 2\n", [], ["bad.yaml:3 seed: given twice"]),
    "tag": ("stages: !!python/object/apply:os.mkdir [made]\n", [], ["not YAML"]),
    "schedule": (ALONE + "record: {at: [sometimes]}\n", [], ["bad.yaml:2 record.at"]),
    "arm": (ALONE + "arms: {a: {stages.3.mix: kvr}}\n", [], ["bad.yaml:2"]),
    "set": (ALONE, ["--set", "stages.0.lmit=3"], ["unknown key"]),
    "set without a value": (ALONE, ["--set", "seed"], ["key=value"]),
    "seed of 65 bits": (ALONE, ["--set", f"seed={2**65}"], ["seed"]),
    "no data": ("stages: [{data: none.jsonl}]\n", [], ["no such file"]),
    "too few facts": ("stages: [{data: {source: triples, limit: 9999999}}]\n", [], ["triples"]),
    "too few sums": (
        "stages: [{data: {source: arithmetic, limit: 9999999}}]\n",
        [],
        ["321 examples found"],
    ),
    "no mix left": (ALONE, ["--set", "stages.0.mix={source: kvr, ratio: 0.001}"], ["ratio"]),
    "out is a file": (ALONE, ["--out", "run.yaml"], ["a file"]),
    "out is full": (ALONE, ["--out", "full"], ["not empty"]),
}


def one_line_each(status: int, err: str, says: list[str]) -> None:
    assert status == 2, err
    lines = err.splitlines()
    assert len(lines) == len(says), err
    assert all(line.startswith("geomix: ") and len(line) < 500 for line in lines)
    for part in says:
        assert sum(part in line for line in lines) == 1, err


def test_a_mistake_is_a_clear_line_and_nothing_is_made(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one process, which must also live through each of them."""
    monkeypatch.setattr("geomix.data.sources.arithmetic.MOST", 321)  # sooner made than all
    desk.write("full/kept", "")
    desk.write("run.yaml", CONFIG)
    commands = []
    for index, (text, arguments, says) in enumerate(BROKEN.values()):
        desk.write(f"{index}/bad.yaml", text)
        model = ["--set", f"model={desk.model}"]
        commands.append((["train", f"{index}/bad.yaml", *model, *arguments], says))
    models = (".", "full", "nobody/nothing", "run.yaml")
    commands += [(["train", "run.yaml", "--set", f"model={m}"], ["model"]) for m in models]
    commands += [
        (["show", "none"], ["no such folder"]),
        (["show", "full"], ["not a run"]),
        (["show"], ["no run here"]),
        (["analyze", "grad-angle", "none"], ["no such"]),
    ]
    before = sorted(desk.folder.rglob("*"))
    for command, says in commands:
        done = desk.run(command)
        one_line_each(done.exit_code, done.stderr, says)
    assert sorted(desk.folder.rglob("*")) == before


def test_a_mistake_at_the_real_command_line(place: Place) -> None:
    before = place.files()
    one = place.geomix("train", "none.yaml")
    one_line_each(one.returncode, one.stderr, ["none.yaml: no such file"])
    two = place.geomix("train", "run.yaml", "--set", "sed=1", "--set", "train.lr=x")
    one_line_each(
        two.returncode, two.stderr, ["sed=1: unknown key; did you mean 'seed'?", "train.lr=x: "]
    )
    assert place.files() == before
