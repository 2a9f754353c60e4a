"""Deviations of the paper's published code, one at a time and all together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from geomix.config.load import load
from geomix.config.run import Quirk, RunConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import chat_format
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.plan import plan_stages
from geomix.data.tokenise import tokenise
from geomix.experiments.run import run_experiment
from geomix.models.load import LoadedModel
from geomix.models.score import TokenLoss, judge
from geomix.runs.directory import RunDirectory
from geomix.training.stage import stages_of
from geomix.util.errors import UserError


class Quiet:
    """A progress display that shows nothing."""

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None: ...

    def logged(self, line: Mapping[str, Any]) -> None: ...


def config(literal: Any, limit: int = 10, **train: Any) -> RunConfig:
    stage = {"data": {"source": "kvr", "limit": limit}, "train": {"batch_size": 4, **train}}
    return RunConfig.model_validate({"stages": [stage], "paper_literal": literal})


def test_true_is_all_of_it_and_false_none() -> None:
    assert config(True).paper_literal == get_args(Quirk)
    assert config(False).paper_literal == ()
    assert config(["drop-last"]).paper_literal == ("drop-last",)


def test_the_same_16_of_2000_facts_are_never_trained() -> None:
    """The paper's numbers: 2,000 facts, batches of 32, so 62 of them and 16 facts left over."""
    (plan,) = plan_stages(config(True, 2000, batch_size=32))
    assert plan.steps(20, 32) == 20 * 62
    epochs = [plan.batches(0, 0, epoch, 32) for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    trained = list(chain(*epochs[0]))
    assert len(set(trained)) == len(trained) == 1984
    (whole,) = plan_stages(config(False, 2000, batch_size=32))
    first = whole.batches(0, 0, 0, 32)
    assert epochs[0] == first[:-1], "the first epoch's own order"
    assert whole.batches(0, 0, 1, 32) != first


def test_each_quirk_of_the_order_stands_alone() -> None:
    (fixed,) = plan_stages(config(["fixed-order"]))
    assert fixed.batches(0, 0, 5, 4) == fixed.batches(0, 0, 0, 4)
    assert fixed.steps(2, 4) == 2 * 3
    (dropped,) = plan_stages(config(["drop-last"]))
    assert dropped.batches(0, 0, 5, 4) != dropped.batches(0, 0, 0, 4)
    assert [len(batch) for batch in dropped.batches(0, 0, 0, 4)] == [4, 4]
    with pytest.raises(UserError, match=r"stages\[0\]: its 3 examples are fewer than a batch of 4"):
        plan_stages(config(["drop-last"], 3))


def test_padding_carries_loss_up_to_the_longest_of_the_batch() -> None:
    short = TokenisedExample((5, 6, 2), (IGNORED, 6, 2), Example("p", "t"))
    long = TokenisedExample((5, 6, 7, 8, 2), (IGNORED, IGNORED, 7, 8, 2), Example("p", "t"))
    padded = with_padding_loss({"D_A": [short], "D_M": [long], "replay": []})
    assert padded["D_A"][0].ids == (5, 6, 2, 2, 2)
    assert padded["D_A"][0].labels == (IGNORED, 6, 2, 2, 2)
    assert padded["D_M"] == [long]
    assert padded["replay"] == []
    assert with_padding_loss({"D_A": []}) == {"D_A": []}


def test_an_empty_target_is_right_only_where_the_published_code_is_asked_for() -> None:
    example = TokenisedExample((5, 2), (IGNORED, 2), Example("p", ""))
    assert not judge(example, "", TokenLoss(1.0)).exact
    assert judge(example, "anything", TokenLoss(1.0), given=True).exact


def webqa(folder: Path) -> Path:
    file = folder / "train.jsonl"
    rows = [{"question": f"who is {i}?", "answers": [f"a{i}"] if i % 3 else []} for i in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def test_questions_without_an_answer_are_kept_only_then(tmp_path: Path) -> None:
    data = {"source": "webqa", "path": str(webqa(tmp_path)), "limit": 12}
    for literal in (False, ["empty-answers"]):
        run = RunConfig.model_validate({"stages": [{"data": data}], "paper_literal": literal})
        empty = sum(example.target == "" for example in plan_stages(run)[0].own)
        assert (empty > 0) is bool(literal)


RUN = """
model: {model}
train: {{batch_size: 4, lr: 1e-3}}
stages:
  - data: {{source: webqa, path: {file}, limit: 14}}
    mix: {{source: random-words, words: 3, ratio: 1}}
    stop: {{epochs: 2}}
record: null
paper_literal: {literal}
"""


def trained(folder: Path, model: Path, literal: str) -> RunDirectory:
    file = folder / "run.yaml"
    file.write_text(RUN.format(model=model, file=webqa(folder), literal=literal), encoding="utf-8")
    return run_experiment(load(file), folder / "out", lambda _: Quiet())


def test_a_run_with_all_of_it(tmp_path: Path, tiny_model: Path, loaded: LoadedModel) -> None:
    """Realised weights by hand: every row of a batch is as long as its longest, loss on padding."""
    run = trained(tmp_path, tiny_model, "true")
    weights = load_file(run.stage_folder(0, "webqa") / "checkpoints/final/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    steps = [line for line in run.metrics() if line["event"] == "step"]
    assert len(steps) == 2 * (28 // 4)
    verdicts = [
        json.loads(line)
        for line in (run.stage_folder(0, "webqa") / "eval/start.jsonl").read_text().splitlines()
    ]
    empty = [v for v in verdicts if v["set"] == "D_A" and v["target"] == ""]
    assert empty
    assert all(v["exact"] for v in empty)
    assert all(math.isfinite(step["loss"]) for step in steps)


def test_padding_changes_the_share_of_a_source_and_nothing_else_does(
    tmp_path: Path, tiny_model: Path
) -> None:
    shares = {}
    for literal in ("false", "[padding-loss]"):
        folder = tmp_path / literal.strip("[]")
        folder.mkdir()
        steps = [x for x in trained(folder, tiny_model, literal).metrics() if x["event"] == "step"]
        shares[literal] = [step["weights"]["D_A"] for step in steps]
        assert len(steps) == 2 * 7
    assert all(b > a for a, b in zip(*shares.values(), strict=True) if 0 < a < 1)


@pytest.mark.parametrize("literal", ["yes please", "[all]"])
def test_an_unknown_quirk_is_one_line(tmp_path: Path, tiny_model: Path, literal: str) -> None:
    with pytest.raises(UserError, match=r"run.yaml:9 paper_literal"):
        trained(tmp_path, tiny_model, literal)


def test_padding_reaches_the_longest_of_the_stage_where_that_is_asked_for(
    loaded: LoadedModel,
) -> None:
    """The control leaves its passages out of every batch, and so out of the longest, too."""
    data = {"source": "kvr", "limit": 4}
    for passage_free in (False, True):
        mix = {"source": "random-words", "words": 9, "ratio": 1, "passage_free": passage_free}
        made = {}
        for literal in ([], ["padding-loss"], ["pad-to-set"], ["padding-loss", "pad-to-set"]):
            stages = [{"data": data, "mix": mix, "train": {"batch_size": 4}}]
            run = RunConfig.model_validate({"stages": stages, "paper_literal": literal})
            chat = chat_format("tulu", loaded.tokenizer)
            (stage,) = stages_of(run, plan_stages(run), loaded.tokenizer, chat)
            made[tuple(literal)] = stage
        plain, padded, _, whole = made.values()
        whole_set = max(
            len(e.ids) for e in (*plain.own, *([] if passage_free else plain.mixes["D_M"]))
        )
        assert made["pad-to-set",].batch([0, 1]) == plain.batch([0, 1]), "alone it changes nothing"
        own = max(range(4), key=lambda i: len(plain.own[i].ids))
        (found,) = whole.batch([own])["D_A"]
        (before,) = plain.batch([own])["D_A"]
        assert padded.batch([own])["D_A"] == [before]
        fill = before.ids[-1:] * (whole_set - len(before.ids))
        assert (found.ids, found.labels) == (before.ids + fill, before.labels + fill)
        assert bool(fill) is not passage_free


TALK = Example("c", "d", earlier=(("a", "b"), ("Why\n?", " e")))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(
    ("name", "carries"),
    [
        ("tulu", "b</s>\n e</s>\nd</s>"),
        ("{prompt}={target}\n\n", "b</s>\n e</s>\nd</s>"),
        ("{prompt}={target} \n", "b</s> e</s>d</s>"),
        ("{prompt}={target}", "b</s> e</s>d</s>"),
    ],
)
def test_the_line_break_after_an_inner_answer_carries_loss_where_that_is_asked_for(
    make_tokenizer: Callable[..., Any], name: str, carries: str, split: bool
) -> None:
    """By hand; where merges run over the end of a target, too."""
    tokenizer = make_tokenizer(["=b =d = e ?= e a=b c=d"], 300, split=split)
    plain = tokenise(tokenizer, TALK, chat_format(name, tokenizer))
    found = tokenise(tokenizer, TALK, chat_format(name, tokenizer, newline_loss=True))
    assert found.ids == plain.ids
    labelled = [label for label in found.labels if label != IGNORED]
    assert tokenizer.decode(labelled) == carries
    assert found.target_start == plain.target_start
    alone = Example("c", "d")
    with_it = tokenise(tokenizer, alone, chat_format(name, tokenizer, newline_loss=True))
    assert with_it == tokenise(tokenizer, alone, chat_format(name, tokenizer))


def test_the_warm_up_begins_at_zero_where_that_is_asked_for(loaded: LoadedModel) -> None:
    """Beside the schedules of transformers, which the published code uses."""
    from torch.optim import SGD
    from transformers import get_scheduler

    steps = 40
    optimiser = SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    theirs = get_scheduler("cosine", optimiser, num_warmup_steps=2, num_training_steps=steps)
    wanted = []
    for _ in range(steps):
        wanted.append(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step()
    rates = {}
    for literal in ([], ["zero-warmup"]):
        run = RunConfig.model_validate(
            {"stages": [{"data": "kvr", "stop": {"steps": steps}}], "paper_literal": literal}
        )
        chat = chat_format("tulu", loaded.tokenizer)
        (stage,) = stages_of(run, plan_stages(run), loaded.tokenizer, chat)
        rates[len(literal)] = [stage.rate(step) for step in range(steps)]
    assert rates[1] == pytest.approx(wanted, rel=1e-9)
    assert rates[1][0] == 0.0
    assert rates[0][2:] == rates[1][2:]
    assert rates[0][:2] == pytest.approx([5e-5 / 3, 5e-5 * 2 / 3])


def test_a_run_trains_with_the_new_quirks_alone(tmp_path: Path, tiny_model: Path) -> None:
    weights = {}
    for literal in ("[padding-loss]", "[padding-loss, pad-to-set]", "[zero-warmup]"):
        folder = tmp_path / literal.strip("[]").replace(", ", "+")
        folder.mkdir()
        run = trained(folder, tiny_model, literal)
        weights[literal] = [x for x in run.metrics() if x["event"] == "step"]
    one, whole, zero = weights.values()
    assert sum(step["tokens"] for step in whole) > sum(step["tokens"] for step in one)
    assert zero[0]["lr"] == 0.0
    assert one[0]["lr"] > 0.0
