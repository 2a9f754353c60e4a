"""`geomix config`: what it prints is a configuration again, and the schema says what loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from geomix.cli import main
from geomix.cli.config import schema, validate
from geomix.config.load import PRESETS, load
from geomix.data.sources import SOURCES
from geomix.util.errors import UserError
from tests.documentation import PAGES, blocks

SHORT = """
stages:
  - data: kvr
    mix: random-words
  - data: {source: popqa, familiar: drop}
    replay: 0.1
paper_literal: true
record: null
arms: {plain: {stages.0.mix: null}, other: }
"""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["config", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("arm", ["plain", "other"])
def test_what_is_shown_is_the_same_configuration_again(tmp_path: Path, arm: str) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(SHORT, encoding="utf-8")
    code, text = run("show", str(file), "--arm", arm, "--set", "seed=5")
    assert code == 0
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    again = load(tmp_path / "again.yaml").arms[""]
    assert again == load(file, ["seed=5"]).arms[arm]
    assert again.seed == 5


def test_all_arms_are_a_document_each() -> None:
    _, text = run("show", "demo")
    shown = list(yaml.safe_load_all(text))
    assert [one["stages"][0]["mix"] is None for one in shown] == [True, False, False]
    assert re.findall(r"^# arm (.*)$", text, re.MULTILINE) == ["plain", "mixed", "control"]


def test_an_unknown_arm_is_one_line() -> None:
    code, text = run("show", "demo", "--arm", "mixt")
    assert code == 2
    assert text == "geomix: demo: it has no arm 'mixt'; its arms: plain, mixed, control\n"


def test_every_mistake_of_every_file_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(SHORT, encoding="utf-8")
    bad.write_text("stages: [{data: kvr, mixx: 1}]\nseed: -1\n", encoding="utf-8")
    assert validate([good]) == [f"{good}: 2 stages, arms plain, other"]
    with pytest.raises(UserError) as raised:
        validate([good, bad])
    assert len(raised.value.lines) == 2
    assert all("bad.yaml" in line for line in raised.value.lines)
    code, text = run("validate", str(good), str(bad))
    assert code == 2
    assert len(text.splitlines()) == 2


class Yaml12(yaml.SafeLoader):
    """As editors read it: 4e-3 is a number there, and a text in PyYAML's YAML 1.1."""


Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"),
    list("0123456789"),
)


def errors(text: str) -> list[str]:
    found = Draft202012Validator(schema()).iter_errors(yaml.load(text, Yaml12))
    return [error.message for error in found]


def test_the_schema_takes_what_loads(tmp_path: Path) -> None:
    Draft202012Validator.check_schema(schema())
    texts = [file.read_text(encoding="utf-8") for file in PRESETS.glob("*.yaml")]
    examples = [block.text for page in PAGES for block in blocks(page, "yaml")]
    studies = re.compile("^(base|claims):", re.MULTILINE)
    texts += [example for example in examples if not studies.search(example)]
    texts.append(SHORT)
    for text in texts:
        assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "seed: 1",
        "stages: []",
        "stages: [{data: kvr, mixx: 1}]",
        "stages: [{data: {source: kvr, limit: 0}}]",
        "stages: [{data: kvr, replay: yes}]",
        "stages: [{data: {source: kvr, familiar: maybe}}]",
        "stages: [{data: kvr}]\npaper_literal: [all]",
        "stages: [{data: kvr}]\ntrain: {loss: sum}",
        "stages: [{data: kvr}]\narms: {}",
    ],
)
def test_the_schema_refuses_what_does_not_load(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        load(file)
    assert errors(text)


def test_every_key_of_the_schema_says_what_it_is() -> None:
    found: dict[str, Any] = json.loads(run("schema")[1])
    classes = {"RunConfig": found, **found["$defs"]}
    for name, described in classes.items():
        for key, value in described.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    ("name", "lr", "more"),
    [("paper-llama3-8b", 5e-5, ("kpile-none", "none-random")), ("paper-mistral-7b", 1e-5, ())],
)
def test_the_papers_presets_have_the_papers_numbers(
    name: str, lr: float, more: tuple[str, ...]
) -> None:
    """Appendix B of arXiv 2411.07175, written down here once more."""
    arms = load(PRESETS / f"{name}.yaml", sources=tuple(SOURCES)).arms
    assert list(arms) == ["plain", "random", "kpile", "random-kpile", *more, "random-control"]
    for config in arms.values():
        first, second = config.stages
        assert (first.data.source, first.data.limit, first.stop.epochs) == ("kvr", 2000, 20)
        assert (second.data.limit, second.stop.loss_below, second.stop.times) == (2000, 1e-4, 10)
        for stage in config.stages:
            train = stage.train
            assert (train.lr, train.batch_size, train.loss) == (lr, 32, "token")
            assert (train.betas, train.weight_decay, train.clip) == ((0.9, 0.95), 0, 1.0)
            assert (train.schedule, train.warmup, train.precision) == ("cosine", 0.05, "bf16")
            for mix in stage.mixes.values():
                assert (mix.ratio, mix.words) == (2, 50)
    mixed = {name: [bool(stage.mix) for stage in config.stages] for name, config in arms.items()}
    assert mixed["plain"] == [False, False]
    assert mixed["random-kpile"] == [True, True]
    assert arms["random-control"].stages[0].mix.passage_free  # type: ignore[union-attr]


def test_the_preset_of_table_2_has_its_six_rows() -> None:
    """Each row is what is mixed into stage 1 and into stage 2; the control is not the paper's."""
    arms = load(PRESETS / "paper-llama3-8b.yaml", sources=tuple(SOURCES)).arms
    rows = {
        name: tuple(next((m.source for m in s.mixes.values()), None) for s in config.stages)
        for name, config in arms.items()
        if not any(mix.passage_free for s in config.stages for mix in s.mixes.values())
    }
    assert rows == {
        "plain": (None, None),
        "random": ("random-words", None),
        "kpile": (None, "kpile"),
        "random-kpile": ("random-words", "kpile"),
        "kpile-none": ("kpile", None),
        "none-random": (None, "random-words"),
    }
