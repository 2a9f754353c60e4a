"""A run's stages: the files, the training events, the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from geomix.api import Run
from geomix.config.run import RunConfig
from geomix.data.plan import plan_stages
from geomix.data.tokenise import tokenise_all
from geomix.models.distributed import Workers
from geomix.models.load import LoadedModel
from geomix.training import engine
from geomix.training.engine import Engine
from geomix.training.observer import TrainingEvent

MIX = {"source": "random-words", "ratio": 2, "words": 3}


class Silent:
    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None: ...

    def logged(self, line: Mapping[str, Any]) -> None: ...


class Watcher:
    """Keeps what it is shown, with a copy of one weight."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, int, int, int]] = []
        self.losses: list[float | None] = []
        self.weights: list[torch.Tensor] = []

    def observe(self, event: TrainingEvent) -> None:
        at = event
        self.seen.append((at.stage, at.stage_name, at.step, at.steps, at.epoch))
        self.losses.append(at.loss)
        assert all(p.grad is None for p in at.model.parameters())
        self.weights.append(next(at.model.parameters()).detach().clone())


TRAIN = {"lr": 1e-2, "batch_size": 4, "warmup": 0}
STAGES: list[dict[str, Any]] = [
    {"data": {"source": "kvr", "limit": 3}, "mix": MIX, "stop": {"epochs": 3}, "train": TRAIN},
    {
        "name": "sums",
        "data": {"source": "arithmetic", "limit": 2},
        "stop": {"epochs": 2},
        "train": TRAIN,
    },
]


def config(stages: list[dict[str, Any]] = STAGES, epochs: int = 2) -> RunConfig:
    return RunConfig.model_validate({"stages": stages, "evaluate": {"epochs": epochs}})


def trained(run: Path, loaded: LoadedModel, run_config: RunConfig) -> Watcher:
    watcher = Watcher()
    plans = plan_stages(run_config)
    Engine(run_config, loaded, Run(run), [watcher], Silent()).train(plans)
    return watcher


def test_the_tree_of_files_is_exactly_this(tmp_path: Path, loaded: LoadedModel) -> None:
    trained(tmp_path, loaded, config())
    final = (
        "adam_second_moments.safetensors",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "position.json",
        "tokenizer.json",
        "tokenizer_config.json",
    )
    expected = {"metrics.jsonl", "status.json"}
    evaluations = {"0-kvr": ("start", "epoch-002", "epoch-003"), "1-sums": ("epoch-002",)}
    for stage, names in evaluations.items():
        expected |= {f"stages/{stage}/checkpoints/final/{name}" for name in final}
        expected |= {f"stages/{stage}/eval/{name}.jsonl" for name in names}
        expected |= {f"stages/{stage}/data.json", f"stages/{stage}/examples.jsonl"}
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == expected


def test_observers_see_step_0_of_each_stage_and_every_step(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    """9 examples in fours: 3 steps an epoch, of which the last ends it; then 1 step an epoch."""
    watcher = trained(tmp_path, loaded, config())
    first = [(0, "kvr", step, 9, step // 3) for step in range(10)]
    second = [(1, "sums", step, 2, step) for step in range(3)]
    assert watcher.seen == first + second
    assert [loss is None for loss in watcher.losses] == [True] + [False] * 9 + [True] + [False] * 2
    weights = watcher.weights
    assert torch.equal(weights[9], weights[10]), "a stage begins where the one before ended"
    assert not any(torch.equal(a, b) for a, b in pairwise(weights[:10]))


def test_metrics_hold_a_line_a_step_and_an_evaluation(tmp_path: Path, loaded: LoadedModel) -> None:
    watcher = trained(tmp_path, loaded, config())
    lines = list(Run(tmp_path).metrics())
    steps = [line for line in lines if line["event"] == "step"]
    assert [(line["stage"], line["step"]) for line in steps] == [
        (stage, step) for stage, _, step, _, _ in watcher.seen if step
    ]
    assert [line["loss"] for line in steps] == [loss for loss in watcher.losses if loss is not None]
    assert steps[0]["lr"] == 1e-2
    assert steps[9]["lr"] == 1e-2, "the schedule begins anew in every stage"
    assert all(sum(line["weights"].values()) == pytest.approx(1) for line in steps)
    evaluations = [
        (line["moment"], line["stage"], line["step"], line["epoch"], line["set"], line["n"])
        for line in lines
        if line["event"] == "evaluation"
    ]
    assert evaluations == [
        ("start", 0, 0, 0, "D_A", 3),
        ("start", 0, 0, 0, "D_B", 2),
        ("start", 0, 0, 0, "D_M", 6),
        ("epoch", 0, 6, 2, "D_A", 3),
        ("end", 0, 9, 3, "D_A", 3),
        ("end", 0, 9, 3, "D_B", 2),
        ("end", 0, 9, 3, "D_M", 6),
        ("end", 1, 2, 2, "D_A", 3),
        ("end", 1, 2, 2, "D_B", 2),
        ("end", 1, 2, 2, "D_M", 6),
    ]


def test_verdicts_and_metrics_agree(tmp_path: Path, loaded: LoadedModel) -> None:
    """Every score and the loss are computed again, from the verdict file's own lines."""
    trained(tmp_path, loaded, config())
    text = (tmp_path / "stages/0-kvr/eval/epoch-003.jsonl").read_text(encoding="utf-8")
    verdicts = [json.loads(line) for line in text.splitlines()]
    for line in Run(tmp_path).metrics():
        if line["event"] == "evaluation" and (line["moment"], line["stage"]) == ("end", 0):
            own = [v for v in verdicts if v["set"] == line["set"]]
            assert line["n"] == len(own)
            for score, of_one in (
                ("exact_match", "exact"),
                ("alias_match", "alias"),
                ("token_f1", "f1"),
                ("rouge_l", "rouge_l"),
            ):
                assert line[score] == 100 * sum(v[of_one] for v in own) / len(own)
            assert line["final_number"] is None
            assert all(v["final_number"] is None for v in own)
            tokens = sum(v["tokens"] for v in own)
            assert line["loss"] == pytest.approx(sum(v["nll"] for v in own) / tokens)


def test_evaluations_do_not_change_the_weights(tmp_path: Path, loaded: LoadedModel) -> None:
    ends = []
    for name, epochs in (("every", 1), ("boundaries", 0)):
        fresh = LoadedModel(*_copy(loaded))
        trained(tmp_path / name, fresh, config(epochs=epochs))
        ends.append([p.detach() for p in fresh.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert not torch.equal(ends[0][0], next(loaded.model.parameters()))


def _copy(loaded: LoadedModel) -> tuple[Any, Any, int, bool]:
    import copy

    return copy.deepcopy(loaded.model), loaded.tokenizer, loaded.pad_id, loaded.packs


def test_the_checkpoint_loads_and_gives_the_same_logits(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    trained(tmp_path, loaded, config())
    final = tmp_path / "stages/1-sums/checkpoints/final"
    again: Any = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32).eval()
    model: Any = loaded.model
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(final)
    text = "The value of key é日本 is?"
    assert tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert tokenizer.eos_token_id == loaded.tokenizer.eos_token_id


def test_the_saved_second_moments_are_adams(tmp_path: Path, loaded: LoadedModel) -> None:
    """After one step v̂ is g², which is taken here by autograd, unpadded."""
    train = {"betas": [0.9, 0.96], "clip": None, "loss": "example"}
    stop = {"epochs": 1}
    one = config([{"data": {"source": "kvr", "limit": 2}, "stop": stop, "train": train}])
    model: Any = _copy(loaded)[0]
    losses = []
    for example in tokenise_all(loaded.tokenizer, plan_stages(one)[0].own):
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:])))
    torch.autograd.backward(torch.stack(losses).mean())
    trained(tmp_path, loaded, one)
    saved = load_file(tmp_path / "stages/0-kvr/checkpoints/final/adam_second_moments.safetensors")
    assert set(saved) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(saved[name], parameter.grad**2, rtol=1e-3, atol=1e-9, msg=name)


def test_data_json_counts_what_is_trained_on(tmp_path: Path, loaded: LoadedModel) -> None:
    trained(tmp_path, loaded, config())
    data = json.loads((tmp_path / "stages/0-kvr/data.json").read_text())
    sets, chat = data["sets"], data["chat"]
    assert chat == {"before": ["<|user|>\n"], "between": ["\n<|assistant|>\n"], "end": "</s>"}
    assert {name: s["examples"] for name, s in sets.items()} == {"D_A": 3, "D_M": 6}
    lines = [m for m in Run(tmp_path).metrics() if m["event"] == "step" and m["stage"] == 0]
    assert set(lines[0]["weights"]) == {"D_A", "D_M"}


def test_replayed_examples_are_a_source_of_their_own(tmp_path: Path, loaded: LoadedModel) -> None:
    """Their realised weights, over an epoch, add up to the share that `data.json` gives."""
    second = {**STAGES[1], "mix": MIX, "replay": 0.5, "train": {**TRAIN, "loss": "example"}}
    trained(tmp_path, loaded, config([STAGES[0], second]))
    sets = json.loads((tmp_path / "stages/1-sums/data.json").read_text())["sets"]
    counts = {name: known["examples"] for name, known in sets.items()}
    assert counts == {"D_B": 2, "D_M": 4, "replay": 2}
    assert sets["replay"]["source"]["examples"] == {"D_A": 2}
    lines = [m for m in Run(tmp_path).metrics() if m["event"] == "step" and m["stage"] == 1]
    assert len(lines) == 4, "2 epochs of 8 examples in fours"
    for name, known in sets.items():
        realised = [line["weights"][name] for line in lines]
        assert sum(realised) / 4 == pytest.approx(known["effective_weight"]["example"])
    names = {m["set"] for m in Run(tmp_path).metrics() if m["event"] == "evaluation"}
    assert names == {"D_A", "D_B", "D_M1", "D_M2"}, (
        "what is replayed is scored as part of its own set"
    )


def test_mixes_of_several_stages_are_evaluated_apart(tmp_path: Path, loaded: LoadedModel) -> None:
    stages = [dict(STAGES[0]), {**STAGES[1], "mix": MIX}]
    trained(tmp_path, loaded, config(stages))
    lines = [line for line in Run(tmp_path).metrics() if line["event"] == "evaluation"]
    assert {line["set"] for line in lines} == {"D_A", "D_B", "D_M1", "D_M2"}
    assert {line["n"] for line in lines if line["set"] == "D_M2"} == {4}


def test_every_example_is_listed_with_its_set(tmp_path: Path, loaded: LoadedModel) -> None:
    run_config = config([STAGES[0], {**STAGES[1], "replay": 1.0}])
    trained(tmp_path, loaded, run_config)
    first, second = (
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(tmp_path.glob("stages/*/examples.jsonl"))
    )
    assert [row["set"] for row in first] == ["D_A"] * 3 + ["D_M"] * 6
    own = plan_stages(run_config)[0].own
    assert [row["target"] for row in first[:3]] == [example.target for example in own]
    replayed = {row["prompt"] for row in second if row["set"] == "replay"}
    assert replayed == {example.prompt for example in own}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_steps_dropout_is_seeded_with_its_place_and_process(
    tmp_path: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(engine, "seed_dropout", lambda *place: seen.append(place))
    run = Run(tmp_path)
    made = config()
    Engine(made, loaded, run, [], Silent(), workers=Workers(rank)).train(plan_stages(made))
    steps = [(0, step) for step in range(9)] + [(1, step) for step in range(2)]
    assert seen == [(made.seed, stage, step, rank) for stage, step in steps]
