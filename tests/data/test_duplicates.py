"""Messages to a user about repeated data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geomix.cli import main
from geomix.config.run import RunConfig
from geomix.data.duplicates import Duplicates, InCommon, duplicates_in, prompts_in_common
from geomix.data.example import Example
from geomix.data.plan import plan_stages
from geomix.data.probes import evaluation_sets, probe_sets
from geomix.data.remarks import remarks
from geomix.data.sources import SOURCES


def examples(*pairs: str) -> list[Example]:
    return [Example(prompt, target) for prompt, target in (pair.split("=") for pair in pairs)]


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], Duplicates(0, 0, 0, None)),
        (["a=1", "b=1"], Duplicates(0, 0, 0, 100)),
        (["a=1", "a=1", "a= 1 ", "b=2"], Duplicates(2, 0, 0, 100)),
        (["a=1", "a=2", "a=3", "b=1"], Duplicates(0, 3, 0, 50)),
        (["a=1", "a=1", "a=2", "b=1", "c=1"], Duplicates(1, 3, 0, 80)),
        (["Where=1", " where =1", "WHERE=2", "b=1"], Duplicates(0, 0, 3, 100)),
    ],
)
def test_counts_by_hand(pairs: list[str], found: Duplicates) -> None:
    assert duplicates_in(examples(*pairs)) == found


def test_a_conversation_is_another_prompt() -> None:
    earlier = (("hello", "hi"),)
    assert duplicates_in([Example("a", "1"), Example("a", "2", earlier=earlier)]).conflicting == 0


def test_prompts_of_two_stages() -> None:
    earlier = {"D_A": examples("a=1", "a=2", "b=1"), "D_B": examples("z=1")}
    shared = prompts_in_common(examples("A =1", "b=2", "c=1"), earlier)
    assert shared == {"D_A": InCommon(2, 1)}


def config_of(**keys: Any) -> RunConfig:
    stages = [{"data": data, "stop": {"steps": 1}} for data in keys.pop("data")]
    return RunConfig.model_validate({"stages": stages, **keys}, context={"sources": SOURCES})


def told(config: RunConfig) -> list[str]:
    plans = plan_stages(config)
    return remarks(config, plans, probe_sets(config, plans), evaluation_sets(config, plans))


def file_of(name: str, *pairs: str) -> str:
    rows = [{"prompt": e.prompt, "target": e.target} for e in examples(*pairs)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_each_oddity_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["a=1", "a=2", "b=1", "b=1", "C=1", "c =1", "{} d=1", "e=1", "f=1", "g=1"]
    first = file_of("first.jsonl", *rows)
    second = file_of("second.jsonl", "A=1", "b=2", "x=1", "y=1")
    other = file_of("other.jsonl", "q=1", "q=2", "r=1")
    lines = told(
        config_of(
            data=[{"source": first, "limit": 10}, second],
            evaluate={"sets": {"more": {"source": other, "limit": 3}}},
        )
    )
    for line, says in zip(
        lines,
        [
            "first.jsonl (D_A): 2 of 10 examples share a prompt with others that have a different "
            "target; exact match cannot pass 90.0 %",
            "first.jsonl (D_A): 1 of 10 examples are copies of another one",
            "first.jsonl (D_A): 2 of 10 prompts equal another one but for capital letters",
            "first.jsonl (D_A): 1 of 10 prompts hold a literal {}",
            "second.jsonl (D_B): 2 of 3 prompts are the same as in D_A, 1 of them with a different",
            "other.jsonl (evaluate.sets.more): 2 of 3 examples share a prompt with others that "
            "have a different target; exact match cannot pass 66.7 %",
            "first.jsonl (held-out): limit: 10 leaves nothing held out, 9 keeps 1; without ",
        ],
        strict=True,
    ):
        assert line.startswith(says)


def test_data_as_it_should_be_needs_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = file_of("x.jsonl", *(f"p{n}=t{n}" for n in range(20)))
    assert told(config_of(data=["kvr", "triples"])) == []
    assert told(config_of(data=[file, "kvr"])) == []
    repeated = {"source": file, "limit": 30, "allow_repeat": True}
    assert not any("copies" in line for line in told(config_of(data=[repeated])))


def test_held_out_rows_that_are_trained_on_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = told(config_of(data=[file_of("x.jsonl", "a=1", "b=1", "a=1")]))
    assert line.startswith("x.jsonl (held-out): the rows that are held out all have prompts that")


def test_the_dry_run_and_the_training_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` has it in its object, `data.json` keeps the counts."""
    monkeypatch.chdir(tmp_path)
    file = file_of("x.jsonl", *(f"p{n if n != 8 else 0}=t{n}" for n in range(10)))
    text = f"stages:\n  - data: {file}\n    stop: {{steps: 1}}\nevaluate: {{epochs: null}}\n"
    Path("c.yaml").write_text(text + "record: null\n")
    says = "x.jsonl (D_A): 2 of 9 examples share a prompt"
    run = CliRunner()
    dry = run.invoke(main, ["train", "c.yaml", "--dry-run"])
    assert f"warning: {says}" in " ".join(dry.stdout.split())
    found = json.loads(run.invoke(main, ["train", "c.yaml", "--dry-run", "--json"]).stdout)
    assert [line.startswith(says) for line in found["warnings"]] == [True]
    trained = run.invoke(main, ["train", "c.yaml", "--quiet", "--out", "run"])
    assert trained.exit_code == 0, trained.output
    assert f"warning: {says}" in trained.stderr
    (data,) = Path("run").glob("stages/*/data.json")
    known = json.loads(data.read_text())
    assert known["sets"]["D_A"]["duplicates"] == {
        "copies": 0,
        "conflicting": 2,
        "alike": 0,
        "exact_match_at_most": pytest.approx(100 * 8 / 9),
    }
    assert known["in_common"] == {}
