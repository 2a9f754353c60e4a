"""Number of a file's rows that are used, and of those left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geomix.config.data import DataConfig
from geomix.config.run import RunConfig
from geomix.data import plan as stage
from geomix.data.plan import plan_stages
from geomix.data.probes import evaluation_sets, probe_sets
from geomix.data.sources import SOURCES, rows
from geomix.data.sources.rows import held_out_of
from geomix.util.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(count: int, name: str = "facts.jsonl") -> str:
    lines = [json.dumps({"prompt": f"p{n}", "target": f"t{n}"}) for n in range(count)]
    Path(name).write_text("\n".join(lines))
    return name


def run_of(*data: Any, **keys: Any) -> RunConfig:
    stages = [{"data": one, "stop": {"steps": 1}} for one in data]
    return RunConfig.model_validate({"stages": stages, **keys}, context={"sources": SOURCES})


@pytest.mark.parametrize(
    ("count", "held"), [(0, 0), (1, 0), (2, 1), (4, 1), (14, 1), (15, 2), (60, 6), (1000, 100)]
)
def test_a_tenth_is_held_out(count: int, held: int) -> None:
    assert held_out_of(count) == held


@pytest.mark.parametrize("data", ["facts.jsonl", {"source": "facts.jsonl", "limit": None}])
def test_a_file_is_read_to_its_last_tenth(data: Any) -> None:
    written(60)
    config = run_of(data)
    plans = plan_stages(config)
    sets = probe_sets(config, plans)
    assert [e.prompt for e in plans[0].own] == [f"p{n}" for n in range(54)]
    assert [e.prompt for e in sets["held-out"]] == [f"p{n}" for n in range(54, 60)]
    held = {"one": {"source": "facts.jsonl", "split": "held-out"}}
    config = run_of(data, evaluate={"sets": held})
    assert evaluation_sets(config, plans)["one"] == sets["held-out"]


def test_the_mix_goes_by_the_rows_that_there_are() -> None:
    written(20)
    data = {"source": "facts.jsonl", "limit": None}
    stages = [
        {"data": data, "mix": {"source": "random-words", "ratio": 2}, "stop": {"steps": 1}},
    ]
    (plan,) = plan_stages(RunConfig.model_validate({"stages": stages}))
    assert (len(plan.own), len(plan.mixed)) == (18, 36)


def test_what_is_too_long_is_left_out_and_takes_nothing_of_the_rest() -> None:
    written(20)

    def choose(_: Any, examples: Any) -> list[str]:
        return ["longer than 8 tokens" if e.prompt in ("p3", "p18") else "" for e in examples]

    config = run_of("facts.jsonl")
    plans = plan_stages(config, choose)
    own = plans[0].sets["D_A"]
    assert [e.prompt for e in own.examples] == [f"p{n}" for n in range(18) if n != 3]
    assert own.dropped == {"longer than 8 tokens": 1}
    assert [e.prompt for e in probe_sets(config, plans, choose)["held-out"]] == ["p19"]


def test_other_sources_keep_their_hundred() -> None:
    written(3)
    Path("mine").mkdir()
    written(3, "mine/facts")
    Path("kvr").mkdir()  # a name of a source stays one
    limits = {name: run_of(name).stages[0].data.limit for name in ("kvr", "popqa", "owner/set")}
    assert set(limits.values()) == {100}
    assert DataConfig.model_validate({"source": "mine/facts"}).limit is None
    with pytest.raises(UserError, match="'kvr': limit: null: it has no end; give a number"):
        plan_stages(run_of({"source": "kvr", "limit": None}))
    with pytest.raises(UserError, match="'kpile': limit: null: it has no end"):
        plan_stages(run_of({"source": "kpile", "limit": None}))


def test_all_of_a_published_split() -> None:
    names = ("question", "possible_answers", "subj", "obj")
    lines = [json.dumps(dict(zip(names, (f"q{n}", '["a"]', "s", "a"), strict=True)))
             for n in range(300)]  # fmt: skip
    Path("popqa.jsonl").write_text("\n".join(lines))
    data = {"source": "popqa", "path": "popqa.jsonl", "limit": None}
    found = {
        split: plan_stages(run_of({**data, "split": split}))[0].own
        for split in ("train", "id", "held-out")
    }
    assert sum(map(len, found.values())) == 300
    assert len(found["train"]) > len(found["id"]) > len(found["held-out"]) > 0


def test_messages_say_what_a_choice_costs() -> None:
    written(60)
    with pytest.raises(UserError) as raised:
        plan_stages(run_of({"source": "facts.jsonl", "limit": 100}))
    assert str(raised.value) == (
        "facts.jsonl: 60 examples found, 100 asked for; set limit: 60, or allow_repeat: true; "
        "60 leaves nothing held out, 54 keeps 6"
    )


def test_a_file_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    written(60)
    monkeypatch.setattr(stage, "MOST_EVERY", 50)
    with pytest.raises(UserError, match=r"facts.jsonl: more than 50 rows; set a limit"):
        plan_stages(run_of("facts.jsonl"))
    monkeypatch.setattr(rows, "MOST_CHARACTERS", 100)
    with pytest.raises(UserError, match=r"more than 100 characters in the first .. rows; set a sm"):
        plan_stages(run_of({"source": "facts.jsonl", "limit": 40}))


def test_mistakes_of_several_files_are_told_at_once() -> None:
    written(5)
    Path("bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "target": 7}')
    sets = {"more": {"source": "none.csv", "limit": 2}, "fine": "facts.jsonl"}
    with pytest.raises(UserError) as raised:
        plan_stages(run_of("bad.jsonl", "fact.jsonl", "facts.jsonl", evaluate={"sets": sets}))
    assert len(raised.value.lines) == 4
    wrong = ("bad.jsonl", "bad.jsonl", "fact.jsonl", "none.csv")
    for line, name in zip(raised.value.lines, wrong, strict=True):
        assert f"{name}:" in line
    sets = {"one": {"source": "none.csv"}, "two": {"source": "no.csv"}}
    config = run_of("kvr", evaluate={"sets": sets})
    with pytest.raises(UserError) as raised:
        evaluation_sets(config, plan_stages(config))
    assert len(raised.value.lines) == 2


def test_no_epochs_are_no_evaluations_between() -> None:
    written(5)
    assert run_of("facts.jsonl", evaluate={"epochs": None}).evaluate.epochs == 0
