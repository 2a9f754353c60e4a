"""Several processes train the same run as one, and do not hang.

The ordinary tests fork them with what a launcher tells its processes, so that the libraries are not
imported again; the slow ones have each launcher start them as users do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geomix.api import Run

CONFIG = """
model: builtin
train: {batch_size: 8, micro_batch_size: 3, weight_decay: 0.1}
stages:
  - data: {source: kvr, limit: 6}
    mix: {source: random-words, ratio: 1, words: 4}
    stop: {steps: 2}
    train: {update_shares: true}
  - data: {source: triples, limit: 13}
    stop: {steps: 3}
    train: {gradient_checkpointing: true}
evaluate:
  epochs: 1
  kl: {examples: 4}
  sets:  # one process has all the wrong answers, and alone has something to decode
    uneven: {source: uneven.jsonl, limit: 8, allow_repeat: true}
checkpoint: {steps: 2}
record:
  at: [boundaries, 2]
  probes: 5  # which two processes cannot share evenly
  activations: 3
  batch_size: 2
  modules: [model.layers.1.mlp]
  gradients: true
  midpoints: true
  pairs: true
  sketches: {entries: 4}
"""
STEPS = 2 + 3
"""Of an epoch whose last batch is half full, and of one and a half."""

LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": [
        "accelerate.commands.launch",
        *("--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
    ],
}


def environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {"PYTHONFAULTHANDLER": "1"}  # a process that aborts says where
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **told}


def start(place: Any, launcher: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a training as a user does; what it prints goes to the files `out` and `err`."""
    with (place.folder / "out").open("w") as out, (place.folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "geomix", "train", *arguments],
            cwd=place.folder,
            env=environment(),
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def shared_by(kind: str) -> list[str]:
    """A sharded model has no sketches."""
    without = ["--set", "record.sketches=null"] if kind == "fsdp" else []
    return ["--set", f"parallel={kind}", *without]


@pytest.fixture(scope="module")
def place(geomix: Any) -> Any:
    """Where runs are, with their configuration and its data."""
    (geomix.folder / "run.yaml").write_text(CONFIG, encoding="utf-8")
    copied = "faplix gadem nubram nedul"
    known = ("Memorize the following random-string passage:\n" + copied, copied)
    pairs = [known if i % 2 else (f"Who is {i}?", "nobody knows that") for i in range(8)]
    rows = [{"prompt": prompt, "target": target} for prompt, target in pairs]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (geomix.folder / "uneven.jsonl").write_text(lines, encoding="utf-8")
    return geomix


@pytest.fixture(scope="module")
def one(place: Any) -> Run:
    done = place("train", "run.yaml", "--out", "one")
    assert done.status == 0, done.err
    return Run(place.folder / "one")


def assert_same(run: Run, one: Run) -> None:
    """What was trained, what was recorded, and what the folder holds."""
    assert_same_training(run, one)
    assert files(run) == files(one)
    assert len(one.snapshots()) == 2 + 2
    for path in one.snapshots():
        assert_same_snapshot(run.snapshot_folder / path.name, path)


def assert_same_training(run: Run, one: Run) -> None:
    """Losses, norms, shares and scores of every line; the weights and second moments."""
    lines, expected = list(run.metrics()), list(one.metrics())
    assert len(lines) == len(expected)
    assert sum(line["event"] == "step" for line in lines) == STEPS
    for line, known in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(known["loss"], rel=1e-4)  # rounding, grown
        for key in set(known) - {"loss", "gradient_norm", "update_shares", "lr"}:
            assert line[key] == (
                pytest.approx(known[key], rel=1e-2, abs=1e-6) if key == "kl" else known[key]
            ), key
        if known["event"] == "step":
            assert line["gradient_norm"] == pytest.approx(known["gradient_norm"], rel=1e-3)
            assert line["lr"] == known["lr"]
        if known.get("update_shares"):
            assert line["update_shares"] == pytest.approx(known["update_shares"], abs=1e-3)
    for stage in ("0-kvr", "1-triples"):
        for name in ("model.safetensors", "adam_second_moments.safetensors"):
            path = Path("stages", stage, "checkpoints", "final", name)
            found, whole = load_file(run.path / path), load_file(one.path / path)
            assert found.keys() == whole.keys()
            for key, value in whole.items():
                assert found[key].shape == value.shape
                torch.testing.assert_close(found[key], value, rtol=1e-2, atol=2e-4, msg=key)


def assert_same_snapshot(found: Path, known: Path) -> None:
    """Every dataset, but for the rounding of sums in another order, which training lets grow.

    Only the path may be absent, or a pair of it: a run that goes on later does not know where its
    piece began.
    """
    first = known.name.startswith("stage0-step000000")
    rtol, atol = (1e-3, 1e-4) if first else (2e-2, 2e-3)
    seen: list[str] = []

    def compare(name: str, item: Any) -> None:
        absent = name.startswith("path/") and resumed
        went_on = run_of(found).name.startswith("dead")
        absent |= name.startswith("path/pair") and went_on and name not in mine
        sketched = name.startswith("probes/") and name.endswith(("sketches", "entry", "/parameter"))
        absent |= sketched and run_of(found).name.endswith("fsdp")
        if isinstance(item, h5py.Dataset) and not absent:
            one, other = item[()], mine[name][()]
            assert (one.shape, one.dtype) == (other.shape, other.dtype), name
            if one.dtype.kind == "f":
                most = float(np.nanmax(np.abs(one), initial=0.0))
                np.testing.assert_allclose(other, one, rtol=rtol, atol=atol * most, err_msg=name)
            else:
                same = (one == other).mean() if one.size else 1.0
                assert same == 1 or (name.endswith("lens_rank") and same > 0.9), name
            seen.append(name)

    with h5py.File(known) as theirs, h5py.File(found) as mine:
        resumed = mine.attrs["path"] != theirs.attrs["path"]
        assert not resumed or "resumed" in mine.attrs["path"]
        theirs.visititems(compare)
        assert mine.attrs.keys() == theirs.attrs.keys()
    assert any(name.startswith("gradients/") for name in seen)
    assert any(name.endswith("lens_logprob") for name in seen)


def run_of(snapshot: Path) -> Run:
    return Run(snapshot.parents[2])


def files(run: Run) -> set[str]:
    return {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}


def launched(place: Any, launcher: str, name: str, *settings: str) -> Run:
    """A run of two processes that came to its end."""
    process = start(place, launcher, "run.yaml", "--out", name, *settings)
    status = process.wait(timeout=300)
    err = (place.folder / "err").read_text()
    assert status == 0, err
    assert (place.folder / "out").read_text().count(f"run → {name}") == 1, "one process speaks"
    assert "Warning" not in err
    run = Run(place.folder / name)
    assert json.loads(run.environment_file.read_text())["processes"] == 2
    return run


def test_two_processes_train_a_sharded_model_as_one(place: Any, one: Run) -> None:
    """Nothing is recorded here: the runs below record."""
    settings = ["--set", "parallel=fsdp", "--set", "record=null"]
    first, second = place.together("train", "run.yaml", "--out", "two", *settings)
    assert (first.status, second.status) == (0, 0), first.err
    assert first.out.count("run → two") == 1
    assert second.out == second.err == "", "one process speaks"
    assert_same_training(Run(place.folder / "two"), one)


LAUNCHED = [("ddp", "accelerate"), ("fsdp", "torchrun")]
REPEATED = [("ddp", "torchrun"), ("fsdp", "accelerate")]
"""Each way to share and each launcher is in another pair, too."""


@pytest.mark.parametrize(
    ("kind", "launcher"),
    [
        *[pytest.param(*pair, marks=pytest.mark.slow) for pair in LAUNCHED],
        *[pytest.param(*pair, marks=pytest.mark.torture) for pair in REPEATED],
    ],
)
def test_two_launched_processes_are_one(place: Any, one: Run, launcher: str, kind: str) -> None:
    run = launched(place, launcher, f"two-{launcher}-{kind}", *shared_by(kind))
    assert_same(run, one)


def test_a_dead_process_ends_the_other_and_one_alone_goes_on(place: Any, one: Run) -> None:
    """Killed before the line of the last step: the other one finds out by itself."""
    name = "dead-ddp"
    lines = [line["event"] for line in one.metrics()]
    last = [number for number, event in enumerate(lines, 1) if event == "step"][-1]
    at = [(r"write \S+/metrics\.jsonl", last, signal.SIGKILL)]
    asked = ["train", "run.yaml", "--out", name, *shared_by("ddp")]
    first, second = place.together(*asked, at=at, victim=1)
    assert second.status == -signal.SIGKILL
    assert second.out == second.err == "", "one process speaks"
    assert first.status not in (0, -signal.SIGALRM)
    run = Run(place.folder / name)
    assert STEPS - 1 <= steps(run) <= STEPS
    assert run.status()["state"] in ("interrupted", "failed")
    resumed = place("train", "--resume", name)
    assert resumed.status == 0, resumed.err
    assert "goes on in stage 2, triples, after step 2" in resumed.out
    assert_same(run, one)


@pytest.mark.slow
def test_a_launcher_ends_a_job_with_a_dead_process_and_another_job_goes_on(
    place: Any, one: Run
) -> None:
    name = "dead-fsdp"
    process = start(place, "torchrun", "run.yaml", "--out", name, *shared_by("fsdp"))
    run = Run(place.folder / name)
    wait_for(lambda: steps(run) > 1)
    assert "Warning" not in (place.folder / "err").read_text()
    os.kill(of_rank(process.pid, 1), signal.SIGKILL)
    began = time.monotonic()
    assert process.wait(timeout=120) != 0
    assert time.monotonic() - began < 60, "a dead process ends the job"
    assert steps(run) < STEPS
    assert run.status()["state"] in ("interrupted", "failed")
    first, second = place.together("train", "--resume", name)
    assert (first.status, second.status) == (0, 0), first.err
    assert second.out == second.err == "", "one process speaks"
    assert_same(run, one)


def one_line(lines: list[str], run: Path) -> None:
    assert sum(line.startswith("geomix: ") for line in lines) == 1
    assert not run.exists()


MISTAKEN = ["run.yaml", "--out", "bad", "--set", "model=no/such/folder"]


def test_a_mistake_is_told_once_and_nothing_hangs(place: Any) -> None:
    ended = place.together("train", *MISTAKEN)
    assert [done.status for done in ended] == [2, 2]
    one_line([line for done in ended for line in done.err.splitlines()], place.folder / "bad")


@pytest.mark.slow
def test_a_mistake_is_told_once_under_a_launcher(place: Any) -> None:
    assert start(place, "torchrun", *MISTAKEN).wait(timeout=120) != 0
    one_line((place.folder / "err").read_text().splitlines(), place.folder / "bad")


def steps(run: Run) -> int:
    if not run.metrics_file.exists():
        return 0
    return sum(line["event"] == "step" for line in run.metrics())


def wait_for(ready: Any) -> None:
    until = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def of_rank(launcher: int, rank: int) -> int:
    """The process that was started with a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == launcher and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def test_one_of_several_ends_with_its_status_whatever_the_interpreter_does_on_its_way_out() -> None:
    program = "import atexit, os; from geomix.__main__ import run; atexit.register(os.abort); run()"
    for arguments, status in (["--version"], 0), (["show", "no/such/run"], 2):
        found = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**environment(), "WORLD_SIZE": "2", "RANK": "0"},
            check=False,
            capture_output=True,
            text=True,
        )
        assert found.returncode == status
        assert (found.stdout if status == 0 else found.stderr).startswith("geomix")
