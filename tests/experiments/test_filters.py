"""Examples that a run uses: those that fit, those that the base model knows or does not know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.config.load import load
from geomix.config.run import RunConfig
from geomix.data.plan import plan_stages
from geomix.data.probes import evaluation_sets, probe_sets, shots_of
from geomix.experiments.filters import chooser
from geomix.experiments.run import run_experiment
from geomix.models.load import LoadedModel
from geomix.planning.plan import plan_table
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from tests.teaching import teach

KEYS = "abcdefghijklmnopqrstuvwx"
KNOWN = set(KEYS[::3])


class Quiet:
    """A progress display that shows nothing."""

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None: ...

    def logged(self, line: Mapping[str, Any]) -> None: ...


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOMIX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 facts, one a letter, the answer is the letter doubled."""
    file = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    rows = [{"prompt": f"The value of {key} is?", "target": f"{key}{key} yes"} for key in KEYS]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def knowing(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that knows every third fact under the plain prompt; taught with raw texts."""
    from geomix.models.load import load_model

    loaded = load_model(str(tiny_model), torch.device("cpu"))
    model: Any = loaded.model
    said = {key: f" {key}{key} yes\n" if key in KNOWN else " none\n" for key in KEYS}
    teach(model, [plain(loaded, key, rest) for key, rest in said.items()])
    folder = tmp_path_factory.mktemp("knowing")
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def plain(loaded: LoadedModel, key: str, rest: str) -> tuple[list[int], int]:
    """Token ids of a question under the plain prompt and how it goes on, and where that begins."""
    question = f"The value of {key} is?"
    start, whole = (loaded.tokenizer(text)["input_ids"] for text in (question, question + rest))
    assert whole[: len(start)] == start
    return whole, len(start)


def keys_of(examples: Any) -> list[str]:
    return [example.prompt.split()[3] for example in examples]


def config(source: Path | str, **keys: Any) -> RunConfig:
    data = keys.pop("data", {})
    stage = {"data": {"source": str(source), **data}, "mix": keys.pop("mix", None)}
    return RunConfig.model_validate({"stages": [stage], **keys})


def test_what_is_too_long_is_passed_over_and_others_take_its_place(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Never cut: the targets used are whole, and the count is exact."""
    file = tmp_path / "texts.jsonl"
    words = [3, 90, 4, 5, 80, 6, 7, 8, 70, 9]
    rows = [{"prompt": f"p{i}", "target": "w " * n + "end"} for i, n in enumerate(words)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = config(file, data={"limit": 5}, max_tokens=60)
    (plan,) = plan_stages(run, chooser(run, loaded))
    assert [example.prompt for example in plan.own] == ["p0", "p2", "p3", "p5", "p6"]
    assert plan.sets["D_A"].dropped == {"longer than 60 tokens": 2}
    held_out = probe_sets(run, [plan], chooser(run, loaded))["held-out"]
    assert [example.prompt for example in held_out] == ["p7", "p9"], "neither trained nor too long"
    with pytest.raises(UserError, match=r"7 examples found, 3 longer than 60 tokens, 8 asked for"):
        plan_stages(run := config(file, data={"limit": 8}, max_tokens=60), chooser(run, loaded))


def test_the_model_itself_may_be_the_limit(loaded: LoadedModel) -> None:
    run = config("kvr", data={"limit": 2}, mix={"source": "random-words", "words": 150})
    with pytest.raises(
        UserError, match=r"1000 longer than 256 tokens \(given up after the first 1000"
    ):
        plan_stages(run, chooser(run, loaded))


def test_a_generated_source_gives_more_where_some_do_not_fit(loaded: LoadedModel) -> None:
    """Prose of about equal length: a limit in its middle leaves out about half."""
    every = config("kvr", data={"limit": 20}, mix={"source": "random-words", "words": 9})
    whole = plan_stages(every, chooser(every, loaded))[0].mixed
    from geomix.data.tokenise import tokenise_all

    lengths = sorted(len(e.ids) for e in tokenise_all(loaded.tokenizer, whole))
    most = lengths[len(lengths) // 2]
    run = every.model_copy(update={"max_tokens": most})
    (plan,) = plan_stages(run, chooser(run, loaded))
    assert len(plan.mixed) == 40
    assert max(len(e.ids) for e in tokenise_all(loaded.tokenizer, plan.mixed)) <= most
    assert plan.mixed[0] in whole
    assert sum(plan.sets["D_M"].dropped.values()) > 0


@pytest.mark.parametrize(("asked", "expected"), [("drop", False), ("only", True)])
def test_facts_are_chosen_by_what_the_model_knows(
    knowing: Path, facts: Path, asked: str, expected: bool
) -> None:
    from geomix.models.load import load_model

    loaded = load_model(str(knowing), torch.device("cpu"))
    run = config(facts, data={"limit": 6, "familiar": {"facts": asked, "prompt": "plain"}})
    (plan,) = plan_stages(run, chooser(run, loaded))
    right = [key for key in KEYS if (key in KNOWN) is expected]
    assert keys_of(plan.own) == right[:6]
    reason = "not familiar" if expected else "familiar"
    assert plan.sets["D_A"].dropped == {reason: KEYS.index(right[5]) + 1 - 6}
    held_out = probe_sets(run, [plan], chooser(run, loaded)).get("held-out", [])
    assert keys_of(held_out) == right[6:12], "the null is of the same kind of facts"
    sources = plan.sets["D_A"].source
    assert sources["familiar"] == {"facts": asked, "prompt": "plain", "shots": 4}


def test_too_few_unfamiliar_facts_say_why(knowing: Path, facts: Path) -> None:
    from geomix.models.load import load_model

    loaded = load_model(str(knowing), torch.device("cpu"))
    run = config(facts, data={"limit": 20, "familiar": {"facts": "drop", "prompt": "plain"}})
    with pytest.raises(UserError, match="16 examples found, 8 familiar, 20 asked for"):
        plan_stages(run, chooser(run, loaded))


def test_solved_examples_are_never_asked_for_themselves(loaded: LoadedModel, facts: Path) -> None:
    """A file's are its first rows, whatever `limit` is; a source's are from its held-out split."""
    run = config(facts, data={"limit": 5, "familiar": {"facts": "drop", "shots": 3}})
    (plan,) = plan_stages(run, chooser(run, loaded))
    assert keys_of(plan.own) == list(KEYS[3:8])
    assert plan.sets["D_A"].dropped == {"shown as a solved example": 3}
    shown = shots_of(run.stages[0].data, 0, 3)
    assert keys_of(shown) == list(KEYS[:3])
    named = config("kvr", data={"limit": 5, "familiar": "drop"})
    shown = shots_of(named.stages[0].data, 0, 4)
    assert len(shown) == 4
    assert not {e.prompt for e in shown} & {e.prompt for e in plan_stages(named)[0].own}


def test_too_few_solved_examples_are_one_line(loaded: LoadedModel, facts: Path) -> None:
    run = config(facts, data={"limit": 5, "familiar": {"facts": "drop", "shots": 30}})
    with pytest.raises(UserError, match=r"30 solved examples .* there are 24; set familiar.shots"):
        plan_stages(run, chooser(run, loaded))


def test_a_set_that_is_trained_on_cannot_be_one_that_is_not(facts: Path) -> None:
    sets = {"others": {"source": str(facts), "limit": 3}}
    run = config(facts, data={"limit": 5}, evaluate={"sets": sets})
    with pytest.raises(UserError, match=r"evaluate.sets.others: 3 of its 3 examples are trained"):
        evaluation_sets(run, plan_stages(run))


def test_held_out_examples_that_another_stage_trains_on_are_none(facts: Path) -> None:
    stages = [{"data": {"source": str(facts), "limit": n}} for n in (5, 8)]
    run = RunConfig.model_validate({"stages": stages})
    held_out = probe_sets(run, plan_stages(run))["held-out"]
    assert keys_of(held_out) == list(KEYS[8:10])


RUN = """
model: {model}
train: {{batch_size: 8, lr: 1e-3}}
stages:
  - data: {{source: {facts}, limit: 8, familiar: {{facts: drop, prompt: plain}}}}
    stop: {{epochs: 2}}
  - data: {{source: arithmetic, limit: 8}}
    stop: {{epochs: 1}}
record: {{at: [boundaries], probes: 4}}
evaluate:
  sets:
    known: {{source: {facts}, limit: 7, familiar: {{facts: only, prompt: plain}}}}
"""


def test_a_run_trains_on_the_unknown_and_evaluates_the_known(
    tmp_path: Path, knowing: Path, facts: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(model=knowing, facts=facts), encoding="utf-8")
    run = run_experiment(load(file), tmp_path / "out", lambda _: Quiet())
    data = json.loads((run.stage_folder(0, "facts") / "data.json").read_text())
    assert data["sets"]["D_A"]["dropped"] == {"familiar": 4}
    lines = [line for line in run.metrics() if line["event"] == "evaluation"]
    moments = {(line["stage"], line["step"], line["moment"]) for line in lines}
    known = [line for line in lines if line["set"] == "known"]
    assert len(known) == len(moments) == 4, "at every evaluation"
    assert all(line["n"] == 7 for line in known)
    verdicts = [
        json.loads(line)
        for line in (run.stage_folder(0, "facts") / "eval/start.jsonl").read_text().splitlines()
    ]
    asked = {
        name: {v["prompt"].split()[3] for v in verdicts if v["set"] == name}
        for name in ("D_A", "known")
    }
    assert asked["known"] == set(sorted(KNOWN)[:7])
    assert asked["D_A"] == set([key for key in KEYS if key not in KNOWN][:8])
    assert isinstance(run, RunDirectory)


def test_a_dry_run_asks_no_model(tmp_path: Path, facts: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(model="no/such-model", facts=facts), encoding="utf-8")
    table = plan_table(load(file))
    assert table.row_count == 2
    assert "is not asked here" in str(table.caption)


def test_a_long_search_is_worth_it_where_few_can_be_used(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Two short rows behind 700 long ones: a source is not short because its beginning is."""
    rows = [{"prompt": f"p{i}", "target": "w " * (90 if i < 700 else 2)} for i in range(702)]
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = config(file, data={"limit": 2}, max_tokens=60)
    (plan,) = plan_stages(run, chooser(run, loaded))
    assert [example.prompt for example in plan.own] == ["p700", "p701"]
    assert plan.sets["D_A"].dropped == {"longer than 60 tokens": 700}


def test_a_model_may_be_asked_in_the_chat_format(loaded: LoadedModel, facts: Path) -> None:
    """Six facts are known in the format, none under the plain prompt."""
    from geomix.data.tokenise import tokenise_all

    every = plan_stages(config(facts, data={"limit": 24}))[0].own
    told = every[:6] + [replace(example, target="none") for example in every[6:]]
    chats = [(e.ids, e.target_start) for e in tokenise_all(loaded.tokenizer, told)]
    teach(loaded.model, chats + [plain(loaded, key, " none\n") for key in KEYS])
    for prompt, expected in (("chat", KEYS[6:12]), ("plain", KEYS[:6])):
        asked = {"facts": "drop", "prompt": prompt}
        run = config(facts, data={"limit": 6, "familiar": asked})
        assert keys_of(plan_stages(run, chooser(run, loaded))[0].own) == list(expected)
