"""Recorded afterwards, a checkpoint gives the very numbers that it gave while the run trained."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomix.api import Run, open_run
from geomix.snapshots.file import read_snapshot

ENDS = """stages:
  - data: {source: kvr, limit: 6}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 1}
  - data: {source: arithmetic, limit: 4}
    replay: 0.5
    stop: {epochs: 1}
train: {lr: 1e-2, batch_size: 3}
record: {at: [boundaries], probes: 3, batch_size: 2}
checkpoint: {steps: 2, keep: 9}
evaluate: {epochs: 0}
"""
"""4 and 3 steps: the first stage has 12 examples, the second 4 and three of the first's."""

KEYS = {
    "plain": "",
    "a part": "trainable: ['layers:1', '*.ln_f.*']",
    "adapters": "lora: {rank: 2, dropout: 0.1}",
    "pure bfloat16": "precision: bf16-pure",
    "mixed precision": "precision: bf16",
    "pieces": "micro_batch_size: 1, gradient_checkpointing: true",
    "packed": "pack: 64, loss: example",
}
OWN = ["record.probes=3", "record.batch_size=2"]
"""What `ENDS` records, for a run that records nothing."""
ALL = ["record.modules=['*.mlp']", "record.gradients=true"]
"""Everything else that a checkpoint can give."""


def trained_by(text: str, first: str, second: str) -> str:
    """A configuration whose stages train in two of `KEYS`."""
    one, other, rest = text.split("    stop: ")
    keys = [f"    train: {{{KEYS[key]}}}\n" if KEYS[key] else "" for key in (first, second)]
    return f"{one}{keys[0]}    stop: {other}{keys[1]}    stop: {rest}"


def told(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def contents(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of a file, as h5py reads it."""
    found: dict[str, Any] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[...])
        for key, value in item.attrs.items():
            if key not in ("REFERENCE_LIST", "DIMENSION_LIST"):
                found[f"{name}@{key}"] = np.asarray(value)

    with h5py.File(path) as file:
        take("", file)
        file.visititems(take)
    return found


def same(ours: Path, theirs: Path) -> None:
    """Two snapshots are equal, dataset by dataset and bit by bit."""
    one, other = contents(ours), contents(theirs)
    assert set(one) == set(other)
    assert len(one) > 30
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        assert values.shape == other[name].shape
        if values.dtype.kind == "O":
            assert values.tolist() == other[name].tolist(), name
        else:
            assert values.tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def train(geomix: Any) -> Any:
    """`train(name, text, *settings)`: a run of this configuration, which a test may change.

    Each is trained once, and copied where it is asked for again.
    """
    known: dict[tuple[str, ...], Path] = {}

    def do(name: str, text: str, *settings: str, **how: Any) -> Run:
        shutil.rmtree(geomix.folder / name, ignore_errors=True)
        asked = (name, text, *settings, str(how))
        if asked in known:
            shutil.copytree(known[asked], geomix.folder / name)
            return Run(geomix.folder / name)
        (geomix.folder / f"{name}.yaml").write_text(text)
        model = told(f"model={geomix.model}", *settings)
        done = geomix("train", f"{name}.yaml", "--out", name, "--quiet", *model, **how)
        assert done.status == 0 or how, done.err
        known[asked] = geomix.folder / f"kept-{len(known)}"
        shutil.copytree(geomix.folder / name, known[asked])
        return Run(geomix.folder / name)

    return do


def without_records(run: Run, name: str) -> Run:
    """A copy of a run, as if it had recorded nothing; what it trained is the same to the bit."""
    copy = Run(run.path.with_name(name))
    shutil.rmtree(copy.path, ignore_errors=True)
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("records"))
    assert not copy.snapshots()
    assert not copy.probes_file.exists()
    return copy


def refused(geomix: Any, *arguments: str) -> str:
    """The lines on stderr of a command that ends with status 2."""
    done = geomix(*arguments)
    assert done.status == 2, done.out + done.err
    assert "Traceback" not in done.err
    return str(done.err)


PAIRS = [
    ("packed", "a part"),
    ("pure bfloat16", "pieces"),
    *[
        pytest.param(*pair, marks=pytest.mark.slow)
        for pair in (
            ("mixed precision", "plain"),
            ("a part", "pure bfloat16"),
            ("pieces", "mixed precision"),
            ("plain", "packed"),
        )
    ],
]
"""Each of `KEYS` in both of the stages; adapters, and no key, in the tests below too."""


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_afterwards_is_as_online_to_the_bit(
    geomix: Any, train: Any, first: str, second: str
) -> None:
    text = trained_by(ENDS, first, second)
    online = train("online", text, *ALL)
    later = without_records(online, "later")
    done = geomix("record", "later")
    assert done.status == 0, done.err
    made = [f"later/records/snapshots/{path.name}" for path in later.snapshots()]
    assert done.out.splitlines() == made
    names = [path.name for path in later.snapshots()]
    assert names == [f"stage{s}-step{n:06d}.h5" for s, n in ((0, 0), (0, 4), (1, 3))]
    for path in later.snapshots():
        same(path, online.snapshot_folder / path.name)
    assert json.loads(later.probes_file.read_text()) == json.loads(online.probes_file.read_text())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("adapters", "a part"),
        pytest.param("a part", "plain", marks=pytest.mark.slow),
    ],
)
def test_checkpoints_within_the_stages_of_a_killed_run(
    geomix: Any, train: Any, first: str, second: str
) -> None:
    text = trained_by(ENDS, first, second)
    text = text.replace("[boundaries]", '[boundaries, "every:2"]').replace("epochs: 1", "steps: 3")
    online = train("online", text)
    killed = train(
        "killed", text, "record=null", at=[("0-kvr/checkpoints/final", 1, signal.SIGKILL)]
    )
    stages = [killed.path / "stages" / name for name in ("0-kvr", "1-arithmetic")]

    def recorded() -> tuple[set[str], str]:
        done = geomix("record", "killed", *told(*OWN))
        assert done.status == 0, done.err
        for path in killed.snapshots():
            same(path, online.snapshot_folder / path.name)
        return {path.stem for path in killed.snapshots()}, done.out

    assert not (stages[0] / "checkpoints" / "final").exists()
    names, _ = recorded()
    assert names == {"stage0-step000000", "stage0-step000002"}
    at = [("1-arithmetic/checkpoints/final", 1, signal.SIGKILL)]
    done = geomix("train", "--resume", "killed", "--quiet", at=at)  # records do not disturb it
    assert done.status == -signal.SIGKILL
    names, said = recorded()
    assert "stage1-step000002" in names
    assert "stage1-step000003" not in names
    assert ("adapters are merged" in said) == (first == "adapters")
    assert ("stage0-step000003" in names) == (first != "adapters"), "of merged ones there is none"
    assert geomix("train", "--resume", "killed", "--quiet").status == 0
    names, _ = recorded()
    assert "stage1-step000003" in names


def test_every_arm_is_recorded_each_from_its_own_weights(geomix: Any, train: Any) -> None:
    """Killed between the arms first: the one that has not begun is left to later."""
    text = ENDS + "arms: {one: {}, two: {seed: 1}}\n"
    online = train("online", text)
    later = train("later", text, "record=null", at=[("arms/two", 1, signal.SIGKILL)])
    assert not (later.path / "arms" / "two").exists()
    asked = ["record", "later", "--at", "boundaries", *told(*OWN)]
    done = geomix(*asked)
    assert done.status == 0, done.err
    assert "later/arms/two: not begun yet" in done.out.splitlines()
    assert not (later.path / "arms" / "two").exists()
    assert len(later.arms[0].snapshots()) == 3
    assert geomix("train", "--resume", "later", "--quiet").status == 0
    done = geomix(*asked)
    assert done.status == 0, done.err
    for mine, theirs in zip(later.arms, online.arms, strict=True):
        assert len(mine.snapshots()) == 3
        for path in mine.snapshots():
            same(path, theirs.snapshot_folder / path.name)
    one, two = (arm.snapshots()[1].read_bytes() for arm in later.arms)
    assert one != two


def test_a_stage_that_ended_early_and_one_that_was_taken(geomix: Any, train: Any) -> None:
    text = ENDS.replace("stop: {epochs: 1}", "stop: {epochs: 1, steps: 3}", 1)
    first = train("first", text, "record=null")
    taken = text.replace(
        "- data: {source: kvr, limit: 6}",
        f"- from: {first.path}\n    data: {{source: kvr, limit: 6}}",
    )
    online = train("online", taken)
    later = without_records(online, "later")
    done = geomix("record", "later", "--at", "boundaries")
    assert done.status == 0, done.err
    assert [path.stem for path in later.snapshots()] == [
        "stage0-step000000",
        "stage0-step000003",
        "stage1-step000003",
    ]
    for path in later.snapshots():
        same(path, online.snapshot_folder / path.name)


def test_what_is_there_is_left_and_what_is_missing_is_made(geomix: Any, train: Any) -> None:
    run = train("online", ENDS)
    before = {path: path.stat().st_mtime_ns for path in run.snapshots()}
    gone = run.snapshots()[0]
    content = gone.read_bytes()
    gone.unlink()
    done = geomix("record", "online", "--at", "boundaries")
    assert done.status == 0, done.err
    there = [line for line in done.out.splitlines() if line.endswith("there already")]
    assert len(there) == 2
    assert len(done.out.splitlines()) == 3
    assert gone.read_bytes() == content
    after = {path: path.stat().st_mtime_ns for path in run.snapshots()}
    assert {path for path in before if before[path] != after[path]} == {gone}
    assert open_run(run.path).status()["state"] == "done"


def test_other_settings_are_not_mixed_with_those_there(geomix: Any, train: Any) -> None:
    run = train("online", ENDS)
    said = refused(geomix, "record", "online", *told("record.probes=2"))
    assert "online: record.probes was 3 for its snapshots, is 2" in said
    assert "move online/records/snapshots away" in said
    shutil.rmtree(run.snapshot_folder)
    done = geomix("record", "online", *told("record.probes=2"))
    assert done.status == 0, done.err
    assert len(read_snapshot(run.snapshots()[0]).probes["D_A"].loss) == 2
    assert json.loads(run.probes_file.read_text())["D_A"]["n"] == 2
    said = refused(geomix, "record", "online")  # by now these are the run's settings
    assert "record.probes was 2 for its snapshots, is 3" in said


def test_what_cannot_be_recorded_is_said(geomix: Any, train: Any) -> None:
    run = train("later", ENDS, "record=null")
    there = "there are stage 1 step 0, stage 1 step 4, stage 2 step 3"
    said = refused(geomix, "record", "later", "--at", "7")
    assert f"later: no checkpoint at step 7; {there}" in said
    said = refused(geomix, "record", "later", "--at", "every:2")
    assert f"no checkpoint at stage 1 step 2, stage 2 step 2; {there}" in said
    assert geomix("record", "later", "--at", "0", "--at", "4", *told(*OWN)).status == 0
    assert "--at: 'often' is not" in refused(geomix, "record", "later", "--at", "often")
    assert "--at: '٤' is not" in refused(geomix, "record", "later", "--at", "٤")
    for long in ("9" * 5000, "every:" + "9" * 5000):
        said = refused(geomix, "record", "later", "--at", long)
        assert "… is too long; give a step of the run" in said
        assert len(said) < 200
    said = refused(geomix, "record", "later", *told("seed=1"))
    assert "only what is recorded can be set" in said
    said = refused(geomix, "record", "later", *told("record.at=[1]"))
    assert "--at says when" in said
    said = refused(geomix, "record", "later", *told("record.prods=1"))
    assert "--set record.prods=1: unknown key; did you mean 'probes'?" in said
    assert "no such folder" in refused(geomix, "record", "nowhere")
    with run.locked():
        said = refused(geomix, "record", "later", *told(*OWN))
    assert "another process is writing this run" in said
    final = run.path / "stages" / "1-arithmetic" / "checkpoints" / "final"
    weights = final / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "model.safetensors is damaged" in refused(geomix, "record", "later", *told(*OWN))
    data = run.path / "stages" / "0-kvr" / "data.json"
    described = data.read_text()
    for broken in ("{}", '{"sets": 5}', '{"sets": {"D_A": 5}}', '{"sets": {}}', None):
        data.unlink()
        if broken is not None:
            data.write_text(broken)
        said = refused(geomix, "record", "later", *told(*OWN))
        assert f"{data.name}: does not say what the stage was trained on" in said
    data.write_text(described.replace('"sha256": "', '"sha256": "0'))
    assert "is not what it was when the run began" in refused(
        geomix, "record", "later", *told(*OWN)
    )


def test_another_base_model_is_not_taken_for_the_one_that_the_run_began_with(
    geomix: Any, train: Any
) -> None:
    base = geomix.folder / "base"
    shutil.copytree(geomix.model, base)
    run = train("based", ENDS, f"model={base}", "record=null")
    assert json.loads(run.base_file.read_text())["model"] == str(base)
    shutil.copytree(run.path, geomix.folder / "fresh")
    (Run(geomix.folder / "fresh").status_file).unlink()
    shutil.rmtree(geomix.folder / "fresh" / "stages")
    weights = base / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for arguments in (["record", "based", "--at", "0"], ["train", "--resume", "fresh"]):
        said = refused(geomix, *arguments)
        assert "its weights are not those that" in said
        assert "restore them, or begin a new run" in said
    assert not run.snapshots()
    assert geomix("record", "based", "--at", "4").status == 0, "a stage's end has its own weights"
