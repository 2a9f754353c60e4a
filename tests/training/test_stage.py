"""A stage's place in its run: its learning rates, its steps, and what it is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geomix.config.run import RunConfig
from geomix.data.chat import chat_format
from geomix.data.plan import plan_stages
from geomix.models.load import LoadedModel
from geomix.training.stage import Stage, check_unchanged, mixed_sets, stages_of
from geomix.util.errors import UserError

MIX = {"source": "random-words", "ratio": 2, "words": 3}


def stages(loaded: LoadedModel, *made: dict[str, Any], **train: Any) -> list[Stage]:
    """4 examples and then 6, in twos; twice each."""
    data = [{"source": "kvr", "limit": 4}, {"source": "arithmetic", "limit": 6}]
    settings = {"lr": 1.0, "warmup": 0, "batch_size": 2, **train}
    given = [
        {"data": source, "stop": {"epochs": 2}, "train": settings, **more}
        for source, more in zip(data, made or ({}, {}), strict=True)
    ]
    config = RunConfig.model_validate({"stages": given})
    chat = chat_format(config.chat_template, loaded.tokenizer)
    return stages_of(config, plan_stages(config), loaded.tokenizer, chat)


def rates(found: list[Stage]) -> list[list[float]]:
    return [[stage.rate(step) for step in range(stage.steps)] for stage in found]


def test_one_schedule_is_carried_on_through_all_stages_or_begins_anew(loaded: LoadedModel) -> None:
    """4 steps and then 6, falling linearly: from 1 by tenths, or in each stage from 1."""
    first, second = rates(stages(loaded, schedule="linear", schedule_over="run"))
    assert [*first, *second] == pytest.approx([1 - step / 10 for step in range(10)])
    anew = stages(loaded, schedule="linear")
    assert rates(anew) == [
        pytest.approx([1 - step / 4 for step in range(4)]),
        pytest.approx([1 - step / 6 for step in range(6)]),
    ]


def test_an_epoch_that_the_steps_leave_unfinished_counts(loaded: LoadedModel) -> None:
    """2 batches an epoch in the first stage, 3 in the second."""
    found = stages(loaded, {"stop": {"steps": 3}}, {"stop": {"steps": 6}})
    assert [(stage.steps, stage.epochs) for stage in found] == [(3, 2), (6, 2)]


def test_the_mean_batch_is_of_what_is_trained_on(loaded: LoadedModel) -> None:
    """The control has the mix's 12 / 2 steps for its 4 examples."""
    control = stages(loaded, {"mix": {**MIX, "passage_free": True}}, {})
    mixed = stages(loaded, {"mix": MIX}, {})
    assert [stage.mean_batch for stage in control] == [pytest.approx(4 / 6), 2]
    assert [stage.mean_batch for stage in mixed] == [2, 2]


@pytest.mark.parametrize("part", ["sets", "evaluated"])
def test_other_examples_than_when_the_run_began_are_one_line(tmp_path: Path, part: str) -> None:
    def told(digest: str) -> dict[str, Any]:
        one = {"sets": {"D_A": {"sha256": "a"}}, "evaluated": {"held_out": {"sha256": "a"}}}
        return one | {part: {"D": {"sha256": digest, "source": {"path": "facts.jsonl"}}}}

    file = tmp_path / "data.json"
    check_unchanged(file, told("b"))
    file.write_text(json.dumps(told("b")))
    check_unchanged(file, told("b"))
    with pytest.raises(UserError, match=r"data\.json: D is not what it was.*facts\.jsonl"):
        check_unchanged(file, told("c"))


PROSE = {"source": "prose", "ratio": 1, "words": 4}
MORE = {**MIX, "name": "more"}


@pytest.mark.parametrize(
    ("mixes", "names"),
    [
        ((MIX, None), ["D_M"]),
        ((MIX, MIX), ["D_M1", "D_M2"]),
        (([MIX, PROSE], None), ["D_M-random-words", "D_M-prose"]),
        (([MIX, PROSE], MIX), ["D_M-random-words", "D_M-prose", "D_M"]),
        (
            ([MIX, PROSE], [PROSE, MORE]),
            ["D_M-random-words", "D_M1-prose", "D_M2-prose", "D_M-more"],
        ),
        (([MIX, {**PROSE, "ratio": 0}], None), ["D_M-random-words"]),
    ],
)
def test_sets_that_stages_mix_in_under_one_name_are_told_apart_by_stage(
    loaded: LoadedModel, mixes: tuple[Any, Any], names: list[str]
) -> None:
    found = stages(loaded, *({"mix": mix} for mix in mixes))
    sets = mixed_sets(found)
    assert list(sets) == names
    for name, examples in sets.items():
        given = [part for stage in found for part in stage.mixes.values()]
        assert examples in given
        if "1" in name or "2" in name:
            stage = found[int("2" in name)]
            assert examples in stage.mixes.values()


def test_a_batch_has_the_examples_of_each_mix_under_its_name(loaded: LoadedModel) -> None:
    """Every example of the stage is in one batch of an epoch, under one set."""
    first, _ = stages(loaded, {"mix": [MIX, {**PROSE, "passage_free": True}]}, {})
    seen: dict[str, list[Any]] = {name: [] for name in first.tokenised}
    for indices in first.plan.batches(0, 0, 0, 2):
        for name, examples in first.batch(indices).items():
            seen[name] += examples
    counts = {name: len(examples) for name, examples in seen.items()}
    assert counts == {"D_A": 4, "D_M-random-words": 8, "D_M-prose": 0}
    assert first.steps == 2 * (4 + 8 + 4) // 2
