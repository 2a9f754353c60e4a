"""`stages.N.from: RUN` where both runs have arms: each takes that of its own name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from geomix.cli import main
from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.experiments.run import resume_experiment
from geomix.runs.directory import RunDirectory
from tests.experiments.test_reuse import Silent, run

MIX = "stages.0.mix: {source: random-words, ratio: 1, words: 3}"
FIRST = f"""
model: MODEL
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 1}}
record: null
arms:
  plain: {{}}
  mixed: {{{MIX}}}
"""
SECOND = FIRST.replace("  - data", "  - from: TAKEN\n    data").replace(
    "record", "  - {data: {source: arithmetic, limit: 4}, stop: {epochs: 1}}\nrecord"
)


def second_of(model: Path, taken: Path) -> str:
    return SECOND.replace("MODEL", str(model)).replace("TAKEN", str(taken))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDirectory:
    return run(FIRST.replace("MODEL", str(tiny_model)), tmp_path_factory.mktemp("runs") / "first")


def trained(arm: RunDirectory) -> bytes:
    return (arm.path / "stages/0-kvr/checkpoints/final/model.safetensors").read_bytes()


def test_each_arm_takes_that_of_its_name(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    """In another order; the run keeps the folders, so that it says what it took."""
    text = second_of(tiny_model, first.path)
    text = text[: text.index("  plain")] + f"  mixed: {{{MIX}}}\n  plain: {{}}\n"
    second = run(text, tmp_path / "second")
    theirs = {arm.name: trained(arm) for arm in first.arms}
    assert {arm.name: trained(arm) for arm in second.arms} == theirs
    assert theirs["plain"] != theirs["mixed"]
    stored = {arm.name: arm.resolved()["config"]["stages"][0]["from"] for arm in second.arms}
    assert stored == {name: f"{first.path}/arms/{name}" for name in ("plain", "mixed")}


def test_it_goes_on_with_the_same_configuration_when_the_other_run_is_gone(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first.path, copy)
    text = second_of(tiny_model, copy)
    second = run(text, tmp_path / "second")
    shutil.rmtree(copy)
    said: list[str] = []
    experiment = load(tmp_path / "second.yaml", sources=tuple(SOURCES))
    resume_experiment(second.path, lambda _: Silent(), experiment=experiment, log=said.append)
    assert said == [f"{second.path}: done already, nothing is left to train"]


def test_a_run_without_arms_is_taken_by_every_arm(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    text = second_of(tiny_model, first.path / "arms/plain")
    text = text.replace(MIX, "stages.1.train: {lr: 1e-3}")
    second = run(text, tmp_path / "second")
    assert [trained(arm) for arm in second.arms] == [trained(first.arms[0])] * 2


def asked(text: str, folder: Path, *more: str) -> list[str]:
    """Return stderr of training and of a dry run: the same lines, with exit status 2."""
    file = folder / "asked.yaml"
    file.write_text(text, encoding="utf-8")
    done = [
        CliRunner().invoke(main, ["train", str(file), *more, *how])
        for how in (["--out", str(folder / "out")], ["--dry-run"])
    ]
    assert [one.exit_code for one in done] == [2, 2]
    assert done[0].stderr == done[1].stderr
    assert not (folder / "out").exists()
    return done[0].stderr.splitlines()


@pytest.mark.parametrize(
    ("more", "who"),
    [("", "no arm 'new'; give it"), ("  newer: {}\n", "no arms 'new', 'newer'; give each")],
)
def test_an_arm_that_the_other_run_lacks_is_one_line(
    first: RunDirectory, tiny_model: Path, tmp_path: Path, more: str, who: str
) -> None:
    text = second_of(tiny_model, first.path) + "  new: {}\n" + more
    (line,) = asked(text, tmp_path)
    assert f"stages[0].from {first.path}: that run has {who} a stages.0.from of its own" in line
    assert f"{first.path}/arms/plain, {first.path}/arms/mixed, or null" in line
    own = f"  new: {{stages.0.from: {first.path}/arms/plain}}\n"
    done = run(text.replace("  new: {}\n" + more, own), tmp_path / "named")
    assert trained(done.arms[2]) == trained(first.arms[0])


def test_an_arm_that_is_not_trained_may_be_lacking(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    text = second_of(tiny_model, first.path) + "  new: {}\n"
    (tmp_path / "some.yaml").write_text(text, encoding="utf-8")
    given = ["train", str(tmp_path / "some.yaml"), "--arm", "plain", "--dry-run"]
    assert CliRunner().invoke(main, given).exit_code == 0


def test_a_run_without_arms_must_name_one(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    text = second_of(tiny_model, first.path)
    (line,) = asked(text[: text.index("arms:")], tmp_path)
    assert f"stages[0].from {first.path}: that run has arms; name one of {first.path}/arms" in line
