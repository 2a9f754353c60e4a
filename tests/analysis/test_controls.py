"""The control of an arm is the arm that differs from it in the passages alone."""

from __future__ import annotations

from pathlib import Path

from geomix.analysis.controls import control_of
from geomix.config.load import load

RUN = """model: builtin
stages:
  - {data: {source: kvr, limit: 4}, stop: {epochs: 1}}
  - {data: {source: triples, limit: 4}, stop: {epochs: 1}}
arms:
  plain: {}
  words: {stages.0.mix: {source: random-words, words: 4}}
  words-control: {stages.0.mix: {source: random-words, words: 4, passage_free: true}}
  long: {stages.0.mix: {source: random-words, words: 9}}
  long-control: {stages.0.mix: {source: random-words, words: 9, passage_free: true}}
  later: {stages.1.mix: {source: random-words, words: 4}}
  faster: {stages.0.mix: {source: random-words, words: 4}, train.lr: 1e-2}
"""


def test_each_mixed_arm_has_its_own_control(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    arms = load(file).arms
    found = {label: control_of(label, arms) for label in arms}
    known = {label: control for label, control in found.items() if control}
    assert known == {"words": "words-control", "long": "long-control"}
