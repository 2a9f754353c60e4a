"""Evaluation within a stage: how often, of how many examples, and against which model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from geomix.api import Run
from geomix.config.run import RunConfig
from geomix.data.example import TokenisedExample
from geomix.data.plan import plan_stages
from geomix.data.tokenise import tokenise_all
from geomix.models.load import LoadedModel, load_model
from geomix.training.engine import Engine
from geomix.training.kl_reference import Reference
from geomix.util.errors import UserError

TRAIN = {"lr": 1e-2, "batch_size": 2, "warmup": 0}
STAGES: list[dict[str, Any]] = [
    {"data": {"source": "kvr", "limit": 8}, "stop": {"epochs": 2}, "train": TRAIN},
    {"data": {"source": "arithmetic", "limit": 4}, "stop": {"epochs": 2}, "train": TRAIN},
]


class Silent:
    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None: ...

    def logged(self, line: Mapping[str, Any]) -> None: ...


def evaluations(folder: Path, loaded: LoadedModel, **evaluate: Any) -> list[dict[str, Any]]:
    """Train and give the evaluation lines."""
    config = RunConfig.model_validate({"stages": STAGES, "evaluate": evaluate})
    run = Run(folder)
    Engine(config, loaded, run, [], Silent()).train(plan_stages(config))
    return [line for line in run.metrics() if line["event"] == "evaluation"]


def moments(lines: list[dict[str, Any]]) -> list[tuple[int, str, int, int]]:
    found = [(line["stage"], line["moment"], line["step"], line["epoch"]) for line in lines]
    return list(dict.fromkeys(found))


def test_every_n_steps_and_never_twice_at_one(tmp_path: Path, loaded: LoadedModel) -> None:
    """4 steps an epoch, then 2: the epoch's own moment takes the place of the step's."""
    lines = evaluations(tmp_path, loaded, steps=2)
    assert moments(lines) == [
        (0, "start", 0, 0),
        (0, "step", 2, 0),
        (0, "epoch", 4, 1),
        (0, "step", 6, 1),
        (0, "end", 8, 2),
        (1, "epoch", 2, 1),
        (1, "end", 4, 2),
    ]
    assert sorted(file.name for file in tmp_path.glob("stages/0-kvr/eval/*")) == [
        "epoch-001.jsonl",
        "epoch-002.jsonl",
        "start.jsonl",
        "step-000002.jsonl",
        "step-000006.jsonl",
    ]
    assert {line["set"] for line in lines if line["moment"] == "step"} == {"D_A"}


def test_steps_alone_are_moments_too(tmp_path: Path, loaded: LoadedModel) -> None:
    lines = evaluations(tmp_path, loaded, steps=4, epochs=0)
    assert [at[1:3] for at in moments(lines) if at[1] == "step"] == [("step", 4)]


def test_within_a_stage_a_sample_is_scored_and_only_for_exact_match(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    lines = evaluations(tmp_path, loaded, sample=3)
    for line in lines:
        within = line["moment"] == "epoch"
        size = {"D_A": 8, "D_B": 4}[line["set"]]
        assert line["n"] == (3 if within else size)
        assert (line["token_f1"] is None) is within
    verdicts = (tmp_path / "stages/1-arithmetic/eval/epoch-001.jsonl").read_text().splitlines()
    whole = (tmp_path / "stages/1-arithmetic/eval/epoch-002.jsonl").read_text().splitlines()
    prompts = [[json.loads(line)["prompt"] for line in lines] for lines in (verdicts, whole)]
    assert prompts[0] == prompts[1][:3] + prompts[1][8:11]
    assert all(json.loads(line)["alias"] is None for line in verdicts)
    assert all(json.loads(line)["prediction"] is not None for line in whole)


@pytest.mark.parametrize("sample", [3, None])
def test_a_set_that_may_end_its_stage_is_scored_whole(
    tmp_path: Path, loaded: LoadedModel, sample: int | None
) -> None:
    stages = [{**STAGES[0], "stop": {"epochs": 2, "exact_match": 100}}, STAGES[1]]
    evaluate = {"sample": sample, "epochs": 0, "steps": 1}
    config = RunConfig.model_validate({"stages": stages, "evaluate": evaluate})
    Engine(config, loaded, Run(tmp_path), [], Silent()).train(plan_stages(config))
    lines = [line for line in Run(tmp_path).metrics() if line.get("moment") == "step"]
    found = {(line["stage"], line["set"]): line["n"] for line in lines}
    assert found == {(0, "D_A"): 8, (1, "D_A"): sample or 8, (1, "D_B"): sample or 4}


def test_the_divergence_is_from_the_model_that_the_stage_began_with(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    """At each stage's end it is that of the two models that are saved, by transformers alone."""
    base = copy.deepcopy(loaded.model)
    lines = evaluations(tmp_path, loaded, kl={"examples": 2}, steps=1)
    by_moment = {(x["stage"], x["moment"], x["step"], x["set"]): x["kl"] for x in lines}
    assert by_moment[0, "start", 0, "D_A"] == by_moment[0, "start", 0, "D_B"] == 0
    finals = [
        AutoModelForCausalLM.from_pretrained(tmp_path / "stages" / stage / "checkpoints" / "final")
        for stage in ("0-kvr", "1-arithmetic")
    ]
    plans = plan_stages(RunConfig.model_validate({"stages": STAGES}))
    for stage, start, end in ((0, base, finals[0]), (1, finals[0], finals[1])):
        step = 8 if stage == 0 else 4
        for name, plan in zip(("D_A", "D_B"), plans, strict=True):
            examples = tokenise_all(loaded.tokenizer, plan.own[:2])
            apart = relative_entropy(start, end, examples)
            assert apart > 1e-4, "it has moved"
            assert by_moment[stage, "end", step, name] == pytest.approx(apart, rel=1e-3)
    within = [kl for (_, moment, _, _), kl in by_moment.items() if moment in ("step", "epoch")]
    assert len(within) > 10
    assert min(within) > 0
    assert len(list(tmp_path.glob("stages/*/start.safetensors"))) == 2


def relative_entropy(start: Any, now: Any, examples: list[TokenisedExample]) -> float:
    """Mean over all target tokens, in nats: Σ p_start · log(p_start / p_now)."""
    terms = []
    for example in examples:
        with torch.no_grad():
            one, other = (
                model.eval()(input_ids=torch.tensor([example.ids])).logits[0].double()
                for model in (start, now)
            )
        p, q = (x[example.target_start - 1 : -1].log_softmax(-1) for x in (one, other))
        terms.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(terms).mean())


def test_nothing_that_is_measured_changes_the_training(tmp_path: Path, dropout_model: Path) -> None:
    """The model draws random numbers while it trains."""
    plain, measured = (load_model(str(dropout_model), torch.device("cpu")) for _ in range(2))
    lines = evaluations(tmp_path / "plain", plain, epochs=0)
    evaluations(tmp_path / "measured", measured, steps=1, sample=1, kl={})
    for one, other in zip(plain.model.parameters(), measured.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(line["kl"] is None for line in lines)


def test_a_divergence_that_is_no_number_ends_the_run(
    tmp_path: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "divergence", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"stage kvr, step 0: kl is nan"):
        evaluations(tmp_path, loaded, kl={})
