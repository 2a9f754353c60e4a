"""`--set` where a configuration has arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geomix.config.load import Experiment, load
from geomix.data.sources import SOURCES
from geomix.util.errors import UserError

TEXT = """stages:
  - data: {source: kvr, limit: 20}
train: {lr: 0.5}
arms:
  plain:
  random:
    stages.0.mix: {source: random-words, ratio: 2, words: 50}
    train.lr: 0.25
  more:
    stages.0.mix: {source: random-words, ratio: 4}
    train.lr: 0.125
"""


def loads(folder: Path, *overrides: str, text: str = TEXT) -> Experiment:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, overrides, tuple(SOURCES))


def refused(folder: Path, *overrides: str, text: str = TEXT) -> str:
    with pytest.raises(UserError) as raised:
        loads(folder, *overrides, text=text)
    (line,) = raised.value.lines
    return line


def words_of(found: Experiment) -> dict[str, Any]:
    mixes = {name: run.stages[0].mixes.get("D_M") for name, run in found.arms.items()}
    return {name: mix and (mix.source, mix.ratio, mix.words) for name, mix in mixes.items()}


@pytest.mark.parametrize("key", ["stages.0.mix.words", "stages[0].mix.words"])
def test_one_key_of_one_arm_is_set_and_nothing_else(tmp_path: Path, key: str) -> None:
    found = loads(tmp_path, f"arms.random.{key}=20")
    expected = {**words_of(loads(tmp_path)), "random": ("random-words", 2.0, 20)}
    assert words_of(found) == expected
    assert found.arms["random"].train.lr == 0.25
    assert found.text.startswith(f"# --set arms.random.{key}=20\n")


def test_the_last_override_of_an_arm_wins(tmp_path: Path) -> None:
    sets = ("arms.random.stages.0.mix.words=20", "arms.random.stages.0.mix={source: kpile}")
    assert words_of(loads(tmp_path, *sets))["random"] == ("kpile", 2.0, 50)
    assert words_of(loads(tmp_path, *reversed(sets)))["random"] == ("kpile", 2.0, 20)
    again = (*sets, "arms.random.stages.0.mix.words=7", "arms.random.stages.0.mix.words=8")
    assert words_of(loads(tmp_path, *again))["random"] == ("kpile", 2.0, 8)
    gone = loads(tmp_path, "arms.random.stages.0.mix=null")
    assert words_of(gone)["random"] is None


def test_an_arm_without_overrides_gets_its_first(tmp_path: Path) -> None:
    found = loads(tmp_path, "arms.plain.train.lr=2", "arms.plain.stages.0.mix.source=kpile")
    assert found.arms["plain"].train.lr == 2
    assert words_of(found)["plain"] == ("kpile", 2.0, 50)
    assert found.arms["random"].train.lr == 0.25


def test_a_set_of_the_base_reaches_the_arms_that_do_not_override_it(tmp_path: Path) -> None:
    found = loads(tmp_path, "train.lr=3", "seed=4", "stages.0.data.limit=5")
    assert [run.train.lr for run in found.arms.values()] == [3, 0.25, 0.125]
    assert {run.seed for run in found.arms.values()} == {4}
    assert {run.stages[0].data.limit for run in found.arms.values()} == {5}


def test_a_key_that_only_arms_have_is_explained(tmp_path: Path) -> None:
    told = refused(tmp_path, "stages.0.mix.words=20")
    assert told == (
        "--set stages.0.mix.words=20: only arms set stages[0].mix (random, more), in place of what "
        "the rest has; give arms.random.stages.0.mix.words=…"
    )
    everywhere = TEXT.replace("  plain:\n", "  plain: {train.lr: 1}\n")
    told = refused(tmp_path, "train.lr=2", text=everywhere)
    assert "every arm sets train.lr (plain, random, more)" in told
    assert "give arms.plain.train.lr=…" in told


def test_a_mix_of_the_base_may_be_set_where_some_arms_replace_it(tmp_path: Path) -> None:
    text = TEXT.replace("limit: 20}", "limit: 20}\n    mix: {source: kpile}")
    found = words_of(loads(tmp_path, "stages.0.mix.words=9", text=text))
    assert found["plain"] == ("kpile", 2.0, 9)
    assert found["random"] == ("random-words", 2.0, 50)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("arms.randm.seed=1", "no arm 'randm'; did you mean 'random'?"),
        ("arms.zzz.seed=1", "no arm 'zzz'; its arms: plain, random, more"),
        ("arms.random.stages.0.mix.wrods=1", "unknown key; did you mean 'words'?"),
        ("arms.random.stages.9.mix.words=1", "stages has 1 items"),
        ("arms.random.stages.0.mix.words=many", "must be a whole number"),
        ("arms.random.seed", "give key=value"),
        ("arms.random.seed=[", "the value is not YAML"),
    ],
)
def test_a_wrong_set_of_an_arm_names_itself(tmp_path: Path, change: str, says: str) -> None:
    told = refused(tmp_path, change)
    assert f"--set {change}" in told
    assert says in told


def test_a_file_without_arms_has_none_to_set(tmp_path: Path) -> None:
    told = refused(tmp_path, "arms.a.seed=1", text="stages: [{data: kvr}]\n")
    assert told == ("--set arms.a.seed=1: the configuration has no arms; leave out 'arms.a.'")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stagse.0.data.limit=3", "did you mean 'stages'?"),
        ("lr=0.1", "did you mean 'train.lr' or 'stages.0.train.lr'?"),
        ("limit=3", "did you mean 'stages.0.data.limit'?"),
        ("stages.0.epochs=3", "did you mean 'evaluate.epochs' or 'stages.0.stop.epochs'?"),
        ("record.zzz=3", "known: preset, at"),
    ],
)
def test_an_unknown_path_gets_the_closest(tmp_path: Path, change: str, says: str) -> None:
    told = refused(tmp_path, change)
    assert told.startswith(f"--set {change}")
    assert told.count(says) == 1
