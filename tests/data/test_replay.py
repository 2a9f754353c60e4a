"""Replay: which examples of earlier stages a stage trains on again."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from geomix.config.load import Experiment
from geomix.config.run import RunConfig
from geomix.data.plan import StagePlan, plan_stages
from geomix.data.probes import probe_sets
from geomix.planning.plan import plan_table
from geomix.util.errors import UserError


def config(*stages: dict[str, Any], **keys: Any) -> RunConfig:
    return RunConfig.model_validate({"stages": list(stages), **keys})


def facts(limit: int = 40, source: str = "kvr", **keys: Any) -> dict[str, Any]:
    return {"data": {"source": source, "limit": limit}, **keys}


def last(*stages: dict[str, Any], **keys: Any) -> StagePlan:
    return plan_stages(config(*stages, **keys))[-1]


def prompts(plan: StagePlan) -> list[str]:
    return [example.prompt for example in plan.sets["replay"].examples]


@pytest.mark.parametrize(("ratio", "above", "below"), [(0.01, 1, 100), (0.05, 1, 20), (0.1, 1, 10)])
@pytest.mark.parametrize("limit", [1, 4, 5, 9, 10, 15, 49, 50, 101, 250, 2000])
def test_the_share_is_exact_and_drawn_without_replacement(
    ratio: float, above: int, below: int, limit: int
) -> None:
    """The count in whole numbers: ratio = above / below, rounded half up."""
    stages = facts(limit), facts(3, "arithmetic", replay=ratio)
    expected = (2 * above * limit + below) // (2 * below)
    if expected == 0:
        says = rf"stages\[1\]\.replay\.ratio {ratio} of {limit} examples of D_A is none"
        with pytest.raises(UserError, match=says):
            last(*stages)
        return
    first, second = plan_stages(config(*stages))
    found = second.sets["replay"].examples
    assert len(found) == len(set(found)) == expected
    assert set(found) <= set(first.own)
    assert second.size == 3 + expected


def test_all_of_a_stage_is_replayed_at_ratio_1() -> None:
    first, second = plan_stages(config(facts(), facts(3, replay=1)))
    assert set(second.sets["replay"].examples) == set(first.own)
    assert len(second.sets["replay"].examples) == 40


def test_every_earlier_stage_gives_its_share_or_those_that_are_named() -> None:
    before = facts(40), facts(20, "arithmetic", mix={"source": "random-words", "words": 5})
    plans = plan_stages(config(*before, facts(30, "triples", replay=0.1)))
    assert plans[2].sets["replay"].source["examples"] == {"D_A": 4, "D_B": 2}
    found = plans[2].sets["replay"].examples
    assert set(found[:4]) <= set(plans[0].own)
    assert set(found[4:]) <= set(plans[1].own), "own examples, not the passages mixed in"
    for named, counts in (([0], {"D_A": 4}), ([1], {"D_B": 2}), ([1, 0], {"D_A": 4, "D_B": 2})):
        replay = {"ratio": 0.1, "stages": named}
        plan = last(*before, facts(30, "triples", replay=replay))
        assert plan.sets["replay"].source["examples"] == counts
        assert set(plan.sets["replay"].examples) <= set(found)


def test_the_choice_is_a_function_of_seed_and_stage_alone() -> None:
    base = {"source": "kvr", "limit": 40, "seed": 9}  # the same facts under every seed of the run

    def of(run_seed: int, *between: dict[str, Any], **replay: Any) -> tuple[str, ...]:
        replayed = facts(7, "arithmetic", replay={"ratio": 0.25, "stages": [0], **replay})
        return tuple(prompts(last({"data": base}, *between, replayed, seed=run_seed)))

    assert of(0) == of(0) == of(5, seed=0)
    assert len({of(0), of(1), of(0, facts(3)), of(0, seed=2)}) == 4
    assert set(of(0, ratio=0.1)) < set(of(0)) < set(of(0, ratio=0.5)), "a larger one has a smaller"


def test_all_examples_of_a_stage_are_equally_likely() -> None:
    """8 of 40 under 400 seeds: 80 each, and 5 standard deviations of a binomial are 40."""
    counts = dict.fromkeys(prompts(last(facts(), facts(1, replay=1))), 0)
    for seed in range(400):
        for prompt in prompts(last(facts(), facts(1, replay={"ratio": 0.2, "seed": seed}))):
            counts[prompt] += 1
    assert len(counts) == 40
    assert 40 <= min(counts.values()) <= max(counts.values()) <= 120


def test_replay_comes_beside_a_mix_and_stays_in_its_control() -> None:
    mix = {"source": "random-words", "ratio": 2, "words": 5}
    plain, mixed, control = (
        last(facts(), facts(10, "arithmetic", mix=m, replay=0.1))
        for m in (None, mix, {**mix, "passage_free": True})
    )
    assert [list(p.sets) for p in (plain, mixed)] == [["D_B", "replay"], ["D_B", "D_M", "replay"]]
    assert prompts(plain) == prompts(mixed) == prompts(control)
    trained = [control.by_set(batch) for batch in control.batches(0, 1, 0, 4)]
    assert sum(len(sets["D_B"]) for sets in trained) == 10
    assert sum(len(sets["replay"]) for sets in trained) == 4
    assert not any(sets["D_M"] for sets in trained)
    assert control.steps(1, 4) == mixed.steps(1, 4) == 9


def test_a_stage_without_replay_is_as_if_there_were_none() -> None:
    with_, without = (plan_stages(config(facts(), facts(9, replay=r))) for r in (0.1, None))
    assert with_[0] == without[0]
    assert with_[1].own == without[1].own
    assert list(without[1].sets) == ["D_B"]


def test_probe_sets_are_the_same_with_replay() -> None:
    with_, without = (config(facts(), facts(9, replay=r)) for r in (0.1, None))
    assert probe_sets(with_, plan_stages(with_)) == probe_sets(without, plan_stages(without))


def test_the_dry_run_counts_it_by_the_set_it_is_from() -> None:
    run = config(facts(40), facts(20), facts(30, "triples", replay=0.1))
    table = plan_table(Experiment("x", "", {"": run}))
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["replay"] == ["–", "–", "4+2"]
    assert cells["steps"] == ["40", "20", "40"], "20 epochs of 2, 1 and ⌈36/32⌉ steps"
    plain = plan_table(Experiment("x", "", {"": config(facts())}))
    assert "replay" not in [column.header for column in plain.columns]


ORDER = """
import hashlib
from geomix.config.run import RunConfig
from geomix.data.plan import plan_stages
words = {"source": "random-words", "words": 5}
stages = [
    {"data": {"source": "kvr", "limit": 50}, "mix": words},
    {"data": {"source": "triples", "limit": 50}, "mix": {"source": "prose", "ratio": 0.5}},
    {"data": {"source": "arithmetic", "limit": 50}, "mix": words, "replay": 0.1},
]
config = RunConfig.model_validate({"seed": 3, "stages": stages})
digest = hashlib.sha256()
for index, plan in enumerate(plan_stages(config)):
    for name, part in plan.sets.items():
        digest.update(repr([name, part.source, part.examples]).encode())
    digest.update(repr([plan.batches(3, index, epoch, 8) for epoch in range(3)]).encode())
print(digest.hexdigest())
"""


def test_every_process_plans_the_same_in_the_same_order() -> None:
    """Text hashes of Python's own differ by process, and sums of threads by their number."""
    settings = [("0", "1"), ("1", "1"), ("random", "2"), ("4242", "4")]
    found = set()
    for hash_seed, threads in settings:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", ORDER]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        found.add(done.stdout)
    assert len(found) == 1
    assert len(found.pop().strip()) == 64
