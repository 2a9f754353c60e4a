"""Every key that a configuration may hold is read by something that a run does.

The classes of the configuration note who reads their fields while tiny runs go through the command
line. What validates, compares or writes a configuration reads every field and proves nothing:
pydantic does it without looking a name up, and readers within `geomix.config` do not count unless
they read on behalf of somebody else, as a property or a method does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic
import pytest
from pydantic import BaseModel, ValidationError

from geomix.config import run as config_module
from geomix.config.data import Strict
from geomix.config.run import RunConfig

WHOLE = """name: whole
stages:
  - data: {source: facts.jsonl, limit: 3, columns: {prompt: q, target: a}}
    mix: {source: random-words, ratio: 1, words: 2}
    method: {name: none, strength: 0}
    stop: {epochs: 2, loss_below: 1e-9, exact_match: 99, patience: 9}
  - data: {source: kvr, limit: 3, familiar: {facts: drop, shots: 1}}
    replay: 0.5
    stop: {epochs: 1}
train: {batch_size: 3, schedule: wsd}
record:
  at: [boundaries]
  probes: 2
  mix: {source: random-words, ratio: 1, words: 2}
  sketches: {entries: 4}
  quantities: [tokens]
evaluate:
  kl: {examples: 2, positions: 4}
  sets: {asked: {source: others.jsonl, limit: 2, columns: {target: a}, template: "{q}"}}
checkpoint: {steps: 1}
arms:
  mixed: {}
  plain: {stages.0.mix: null, stages.0.stop.epochs: 1, train: {batch_size: 3, lora: {rank: 2}}}
"""


def rows(letter: str) -> str:
    return "".join(f'{{"q": "{letter}{i}?", "a": "A{i}"}}\n' for i in range(6))


LAID_OVER = {"RunConfig.train", "RecordConfig.preset"}
"""Merged with other keys before anything reads them (`tests/config/test_config.py`): `train` into
every stage's own, the preset into the keys that are not given."""

CONFIG = tuple(str(path) for path in Path(config_module.__file__).parent.glob("*.py"))
PYDANTIC = str(Path(pydantic.__file__).parent)


def classes(model: type[BaseModel], found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """A class of the configuration and all that its fields hold, whatever they are wrapped in."""
    found.add(model)
    pending: list[Any] = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                classes(annotation, found)
        else:
            pending.extend(get_args(annotation))
    return found


def keys(model: type[BaseModel]) -> set[str]:
    """`TrainConfig.lr` and so on, for every key below."""
    return {f"{c.__name__}.{name}" for c in classes(model, set()) for name in c.model_fields}


def reader_counts() -> bool:
    """Return whether the program reads the field, other than by validation or dump."""
    frame = sys._getframe(2)  # of whoever looked the attribute up
    while frame.f_code.co_filename in CONFIG and frame.f_back:
        frame = frame.f_back  # a property or a method, asked by somebody else
    return not frame.f_code.co_filename.startswith((PYDANTIC, *CONFIG))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The keys that are read while the test runs."""
    found: set[str] = set()

    def spied(self: Strict, name: str) -> Any:
        kind = type(self)
        if not name.startswith("_") and name in kind.model_fields and reader_counts():
            found.add(f"{kind.__name__}.{name}")
        return BaseModel.__getattribute__(self, name)

    monkeypatch.setattr(Strict, "__getattribute__", spied, raising=False)
    yield found
    monkeypatch.undo()


def test_every_key_is_read_by_what_a_run_does(desk: Any, read: set[str]) -> None:
    desk.write("facts.jsonl", rows("Q"))
    desk.write("others.jsonl", rows("R"))
    result = desk.run(desk.train(WHOLE))
    assert result.exit_code == 0, result.output
    known = keys(RunConfig)
    assert len(known) > 60
    assert known - read == LAID_OVER


@pytest.mark.parametrize("model", sorted(classes(RunConfig, set()), key=str))
def test_no_number_is_given_as_a_truth(model: type[BaseModel]) -> None:
    """`lr: true` is not 1.0, wherever a number may stand."""
    for name, field in model.model_fields.items():
        kinds = re.findall(r"\w+", str(field.annotation))
        if "int" not in kinds and "float" not in kinds:
            continue
        for given in (True, [True]):
            with pytest.raises(ValidationError) as raised:
                model.model_validate({name: given})
            told = [e["msg"] for e in raised.value.errors() if e["loc"][:1] == (name,)]
            assert any("give a number" in message for message in told), (name, given, told)


def test_a_key_that_is_only_validated_and_written_counts_as_unread(read: set[str]) -> None:
    config = RunConfig.model_validate({"stages": [{"data": "kvr"}]})
    config.content_hash()
    config.model_dump()
    assert config == RunConfig.model_validate(config.model_dump(mode="json"))
    assert read == set()
    assert config.train.lr > 0
    assert config.stage_name(0) == "kvr"
    assert read == {
        "RunConfig.train",
        "TrainConfig.lr",
        "RunConfig.stages",
        "StageConfig.name",
        "StageConfig.data",
        "DataConfig.source",
    }
