"""Several mixes in one stage: what each draws, the control, probe and evaluated sets, files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geomix.cli.data_overlap import comparisons
from geomix.config.load import load_text
from geomix.config.run import RunConfig
from geomix.data.plan import StagePlan, plan_stages
from geomix.data.probes import probe_sets
from geomix.data.provenance import describe, listed
from geomix.data.sources import SOURCES
from geomix.util.errors import UserError

WORDS = {"source": "random-words", "ratio": 1, "words": 5}
PROSE = {"source": "prose", "ratio": 0.5, "words": 7}


def config(*mixes: Any, limit: int = 8, **keys: Any) -> RunConfig:
    stages = [{"data": {"source": "kvr", "limit": limit}, "mix": mix} for mix in mixes]
    return RunConfig.model_validate({"stages": stages, **keys})


def planned(*mixes: Any, **keys: Any) -> list[StagePlan]:
    return plan_stages(config(*mixes, **keys))


def test_each_mix_is_a_set_that_draws_what_it_would_alone() -> None:
    """Whatever stands beside it, and in whatever order."""
    both, turned = planned([WORDS, PROSE])[0], planned([PROSE, WORDS])[0]
    words, prose = planned(WORDS)[0], planned(PROSE)[0]
    assert list(both.sets) == ["D_A", "D_M-random-words", "D_M-prose"]
    assert [part.role for part in both.sets.values()] == ["own", "mixed", "mixed"]
    for plan in (both, turned):
        assert plan.sets["D_M-random-words"].examples == words.mixed
        assert plan.sets["D_M-prose"].examples == prose.mixed
    assert (len(words.mixed), len(prose.mixed)) == (8, 4)
    assert both.size == 20


def test_two_mixes_of_one_generated_source_draw_different_passages() -> None:
    again = {**WORDS, "name": "again"}
    plan = planned([WORDS, again, {**again, "name": "third", "words": 6}])[0]
    texts = [{e.target for e in part.examples} for part in plan.mixes.values()]
    assert len(set().union(*texts)) == 24
    assert plan.sets["D_M-random-words"].examples == planned(WORDS)[0].mixed


def test_a_ratio_of_0_leaves_the_other_s_name_and_passages() -> None:
    plan = planned([WORDS, {**PROSE, "ratio": 0}])[0]
    assert list(plan.sets) == ["D_A", "D_M-random-words"]
    assert planned([{**WORDS, "ratio": 0}, {**PROSE, "ratio": 0}])[0].mixed == []


@pytest.mark.parametrize("free", [(True, True), (True, False), (False, True)])
def test_the_control_has_the_batches_of_its_mixes_with_those_left_out_that_it_names(
    free: tuple[bool, bool],
) -> None:
    mixes = [{**m, "passage_free": f} for m, f in zip((WORDS, PROSE), free, strict=True)]
    mixed, control = planned([WORDS, PROSE])[0], planned(mixes)[0]
    gone = np.repeat([False, *free], [8, 8, 4])  # by index, in the order of the sets
    for epoch in range(3):
        whole = mixed.batches(1, 0, epoch, 6)
        found = control.batches(1, 0, epoch, 6)
        assert found == [[i for i in batch if not gone[i]] for batch in whole]
    trained = [part.trained for part in control.sets.values()]
    assert trained == [True, not free[0], not free[1]]
    assert control.by_set([0, 9, 19]) == {"D_A": [0], "D_M-random-words": [1], "D_M-prose": [3]}


def test_the_listing_names_the_set_of_each_example_and_weights_sum_to_one() -> None:
    plan = planned([WORDS, PROSE])[0]
    assert listed(plan).count('"set": "D_M-prose"') == 4

    class Three:
        target_tokens, ids, labels = 3, (1, 2), (1, 2)

    tokens: dict[str, Any] = {n: [Three()] * len(part.examples) for n, part in plan.sets.items()}
    sets = describe(plan, tokens)["sets"]
    weights = {name: part["effective_weight"]["token"] for name, part in sets.items()}
    assert weights == {"D_A": 0.4, "D_M-random-words": 0.4, "D_M-prose": 0.2}


def test_each_mix_is_a_probe_set_of_the_first_stage_that_has_it() -> None:
    run = config([WORDS, PROSE], [PROSE, {**WORDS, "name": "w"}])
    plans = plan_stages(run)
    probes = probe_sets(run, plans)
    names = ["D_A", "D_B", "D_M-random-words", "D_M-prose", "D_M-w", "held-out"]
    assert list(probes) == names
    assert probes["D_M-prose"] == plans[0].mixes["D_M-prose"].examples
    assert probes["D_M-w"] == plans[1].mixes["D_M-w"].examples


def test_record_mix_gives_each_arm_the_sets_that_it_lacks() -> None:
    """So all arms probe the same passages, which are those of the arm that mixes both in."""
    record = {"mix": [WORDS, PROSE]}
    both = config([WORDS, PROSE], record=record)
    prose = config({**PROSE, "name": "prose"}, record=record)
    plain = config(None, record=record)
    found = [probe_sets(run, plan_stages(run)) for run in (both, prose, plain)]
    for probes in found:
        assert set(probes) == {"D_A", "D_M-random-words", "D_M-prose", "held-out"}
        assert probes == found[0]


def test_mistakes_of_several_mixes_are_told_at_once_with_their_index() -> None:
    with pytest.raises(UserError) as raised:
        planned([{**WORDS, "ratio": 0.01}, PROSE, {**PROSE, "name": "b", "ratio": 0.02}])
    assert raised.value.lines == (
        "mix[0].ratio 0.01 of 8 examples is none; give a larger ratio",
        "mix[2].ratio 0.02 of 8 examples is none; give a larger ratio",
    )


def test_overlap_compares_the_facts_with_each_mix() -> None:
    text = """
stages:
  - data: {source: kvr, limit: 5}
    mix: [{source: random-words, ratio: 1}, {source: prose, ratio: 1, passage_free: true}]
record: {mix: [{source: prose, ratio: 1}, {source: prose, ratio: 1, name: other}]}
"""
    found = comparisons(load_text(text, "c", (), tuple(SOURCES)))
    assert [(own.name, mixed.name, mixed.source, [*mixed.places]) for own, mixed in found] == [
        ("D_A", "D_M-random-words", "random-words", ["stage 1"]),
        ("D_A", "D_M-prose", "prose", ["stage 1, left out"]),
        ("D_A", "D_M-other", "prose", ["record.mix"]),
    ]
