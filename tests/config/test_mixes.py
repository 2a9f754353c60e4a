"""One mix or several in a stage: names of their sets, `--set`, arms, and what is rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from geomix.config.document import parse
from geomix.config.load import Experiment, experiment_of, load_text
from geomix.config.names import Role, mix_label, mixed_name, order_of_set, role_of, set_name
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES
from geomix.util.errors import UserError

TEXT = """
stages:
  - data: kvr
    mix: [random-words, {source: prose, ratio: 0.5, words: 9}]
"""


def loads(mix: str, *overrides: str) -> RunConfig:
    text = f"stages:\n  - data: kvr\n    mix: {mix}\n"
    return load_text(text, "run.yaml", overrides, tuple(SOURCES)).arms[""]


def told(mix: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        loads(mix, *overrides)
    return raised.value.lines


@pytest.mark.parametrize(
    ("mix", "names"),
    [
        ("null", []),
        ("prose", ["D_M"]),
        ("{source: prose, name: text}", ["D_M-text"]),
        ("[prose]", ["D_M"]),
        ("[prose, random-words]", ["D_M-prose", "D_M-random-words"]),
        ("[prose, {source: prose, name: long}]", ["D_M-prose", "D_M-long"]),
        ("[prose, ./some/facts.v2.csv.gz, own/er]", ["D_M-prose", "D_M-facts.v2", "D_M-er"]),
    ],
)
def test_the_sets_are_called_after_name_or_source(mix: str, names: list[str]) -> None:
    assert list(loads(mix).stages[0].mixes) == names


def test_a_list_of_one_is_that_mix_and_one_mix_is_written_as_before() -> None:
    one, listed = loads("{source: prose, ratio: 1}"), loads("[{source: prose, ratio: 1}]")
    assert one.content_hash() == listed.content_hash()
    dumped = one.model_dump(mode="json")["stages"][0]["mix"]
    assert isinstance(dumped, dict)
    assert "name" not in dumped
    for config in (one, loads("[prose, {source: random-words, name: w}]"), loads("null")):
        again = RunConfig.model_validate(config.model_dump(mode="json"))
        assert again == config
        assert again.content_hash() == config.content_hash()


def test_overrides_and_arms_reach_each_mix() -> None:
    text = TEXT + "arms:\n  one: {stages.0.mix.1.ratio: 0}\n  two: {stages.0.mix: prose}\n"
    found = load_text(text, "run.yaml", ("stages.0.mix.0.words=20",), tuple(SOURCES))
    one, two = (arm.stages[0].mixes for arm in found.arms.values())
    assert one["D_M-random-words"].words == 20
    assert (one["D_M-prose"].ratio, one["D_M-prose"].words) == (0, 9)
    assert list(two) == ["D_M"]


@pytest.mark.parametrize(
    ("mix", "overrides", "lines"),
    [
        ("[]", (), ["run.yaml:3 stages[0].mix: an empty list; to mix nothing in leave it out"]),
        ("[prose, prose]", (), ["two are called 'prose'; give one of them another name"]),
        (
            "[{source: prose, name: b}, {source: kvr, name: b}]",
            (),
            ["run.yaml:3 stages[0].mix: two are called 'b'"],
        ),
        ("[prose, ./a b.csv]", (), ["[1]: a set cannot be called after its source; give it a"]),
        ("{source: prose, name: a b}", (), ["stages[0].mix.name: must begin with a letter"]),
        (
            "[{source: prose, ratoi: 1}, {source: rpose}, null]",
            (),
            [
                "run.yaml:3 stages[0].mix[0].ratoi: unknown key; did you mean 'ratio'?",
                "run.yaml:3 stages[0].mix[1].source: unknown source; did you mean 'prose'?",
                "run.yaml:3 stages[0].mix[2]: must be a mapping",
            ],
        ),
        ("{source: prose, ratoi: 1}", (), ["run.yaml:3 stages[0].mix.ratoi: unknown key; did"]),
        ("3", (), ["run.yaml:3 stages[0].mix: must be a mapping"]),
        (
            "prose",
            ("stages.0.mix.0.words=2",),
            ["stages[0].mix is one mix, no list; leave out '0'"],
        ),
        ("[prose, kvr]", ("stages.0.mix.words=2",), ["stages[0].mix has 2 items; 'words' is not"]),
        ("[prose, kvr]", ("stages.0.mix.2.words=2",), ["stages[0].mix has 2 items; '2' is not"]),
    ],
)
def test_bad_mixes_are_told_of_with_their_place(
    mix: str, overrides: tuple[str, ...], lines: list[str]
) -> None:
    found = told(mix, *overrides)
    assert len(found) == len(lines)
    for line, part in zip(found, lines, strict=True):
        assert part in line


def test_a_single_mix_of_a_file_of_any_name_is_d_m(tmp_path: Path) -> None:
    file = tmp_path / "ünder ärs.csv"
    file.write_text("prompt,target\n", encoding="utf-8")
    assert list(loads(f"'{file}'").stages[0].mixes) == ["D_M"]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((set_name(stage), "own") for stage in range(25)),
        ("D_M", "mixed"),
        ("D_M2", "mixed"),
        ("D_M-prose", "mixed"),
        ("D_M2-a-b.c", "mixed"),
        ("replay", "replayed"),
        ("held-out", "held-out"),
        ("D_MORE", "extra"),
        ("D_A-x", "extra"),
        ("familiar", "extra"),
    ],
)
def test_roles(name: str, role: Role) -> None:
    assert role_of(name) == role


def test_names_of_mixed_sets_and_their_order() -> None:
    made = [mixed_name(label, stage) for label in ("", "a-b") for stage in (None, 0, 12)]
    assert made == ["D_M", "D_M1", "D_M13", "D_M-a-b", "D_M1-a-b", "D_M13-a-b"]
    assert [mix_label(name) for name in made] == ["", "", "", "a-b", "a-b", "a-b"]
    names = ["held-out", "D_M-z", "D_N", "extra", "D_M", "D_A"]
    assert sorted(names, key=order_of_set) == ["D_A", "D_N", "extra", "D_M", "D_M-z", "held-out"]


@pytest.mark.parametrize("name", ["D_M-prose", "D_M1", "D_M", "D_C", "replay", "held-out"])
def test_no_evaluated_set_has_the_name_of_one_that_geomix_makes(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' is the name of a set that geomix makes"):
        loads("prose", f"evaluate.sets.{name}=kvr")


def experiment(text: str) -> Experiment:
    return experiment_of(parse(text, "run.yaml"), text, tuple(SOURCES))


def test_record_mix_takes_a_list() -> None:
    found = experiment(TEXT + "record: {mix: [prose, {source: random-words, words: 3}]}\n")
    record = found.arms[""].record
    assert record is not None
    assert isinstance(record.mix, tuple)
    assert [mix.source for mix in record.mix] == ["prose", "random-words"]
