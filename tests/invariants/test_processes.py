"""Several processes, started as users start them: the same run as one, and no hanging."""

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
  - data: {source: kvr, limit: 18}
    mix: {source: random-words, ratio: 1, words: 4}
    stop: {steps: 12}
    train: {update_shares: true}
  - data: {source: triples, limit: 21}
    stop: {steps: 7}
    train: {gradient_checkpointing: true}
evaluate:
  epochs: 2
  kl: {examples: 4}
  sets:  # one process has all the wrong answers, and alone has something to decode
    uneven: {source: uneven.jsonl, limit: 8, allow_repeat: true}
checkpoint: {steps: 5}
record:
  at: [boundaries, 3, 7]
  probes: 11  # which two processes cannot share evenly
  activations: 3
  batch_size: 4
  modules: ["*.mlp"]
  gradients: true
  midpoints: true
  pairs: true
  sketches: {entries: 4}
"""
STEPS = 12 + 7
"""Of 5 a first epoch whose last batch is half full, and of 3."""

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


def start(folder: Path, launcher: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "geomix", "train", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def shared_by(kind: str) -> list[str]:
    """A sharded model has no sketches."""
    without = ["--set", "record.sketches=null"] if kind == "fsdp" else []
    return ["--set", f"parallel={kind}", *without]


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "run.yaml").write_text(CONFIG, encoding="utf-8")
    copied = "faplix gadem nubram nedul"
    known = ("Memorize the following random-string passage:\n" + copied, copied)
    pairs = [known if i % 2 else (f"Who is {i}?", "nobody knows that") for i in range(8)]
    rows = [{"prompt": prompt, "target": target} for prompt, target in pairs]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "uneven.jsonl").write_text(lines, encoding="utf-8")
    return folder


def alone(place: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "geomix", "train", *arguments]
    subprocess.run(
        command, cwd=place, env=environment(), check=True, capture_output=True, timeout=300
    )


@pytest.fixture(scope="module")
def one(place: Path) -> Run:
    alone(place, "run.yaml", "--out", "one")
    return Run(place / "one")


def assert_same(run: Run, one: Run) -> None:
    """Losses, norms, shares and scores of every line; the weights; what the folder holds."""
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
    assert files(run) == files(one)
    assert len(one.snapshots()) == 4 + 2
    for path in one.snapshots():
        assert_same_snapshot(run.snapshot_folder / path.name, path)


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


@pytest.mark.parametrize(
    ("launcher", "kind"),
    [
        pytest.param("torchrun", "ddp", marks=pytest.mark.slow),  # the dead runs are begun so too
        ("torchrun", "fsdp"),
        ("accelerate", "ddp"),
    ],
)
def test_two_processes_are_one(place: Path, one: Run, launcher: str, kind: str) -> None:
    name = f"two-{launcher}-{kind}"
    process = start(place, launcher, "run.yaml", "--out", name, *shared_by(kind))
    out, err = finish(process)
    assert out.count(f"run → {name}") == 1, "one process speaks"
    assert "Warning" not in err
    assert json.loads((place / name / "env.json").read_text())["processes"] == 2
    assert_same(Run(place / name), one)


@pytest.fixture(params=["ddp", "fsdp"])
def dead(place: Path, request: pytest.FixtureRequest) -> Path:
    """A run of two processes of which the second was killed after some steps."""
    name = f"dead-{request.param}"
    process = start(place, "torchrun", "run.yaml", "--out", name, *shared_by(request.param))
    run = Run(place / name)
    wait_for(lambda: steps(run) > 7)
    os.kill(of_rank(process.pid, 1), signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert time.monotonic() - began < 60, "a dead process ends the job"
    assert steps(run) < STEPS
    return run.path


def test_a_dead_process_ends_the_job_and_another_number_goes_on(dead: Path, one: Run) -> None:
    assert Run(dead).status()["state"] in ("interrupted", "failed")
    if dead.name.endswith("ddp") and not dead.name.endswith("fsdp"):
        alone(dead.parent, "--resume", dead.name)
    else:
        finish(start(dead.parent, "torchrun", "--resume", dead.name))
    assert_same(Run(dead), one)


def test_a_mistake_is_told_once_and_nothing_hangs(place: Path) -> None:
    process = start(place, "torchrun", "run.yaml", "--out", "bad", "--set", "model=no/such/folder")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert sum(line.startswith("geomix: ") for line in err.splitlines()) == 1
    assert not (place / "bad").exists()


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
