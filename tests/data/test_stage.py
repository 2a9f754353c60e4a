"""Training data of a stage: counts, order, the control, the probe sets."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.config.data import MixConfig
from geomix.config.names import Role, set_name
from geomix.config.run import RunConfig
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.plan import SourceSet, StagePlan, mixed_sets, plan_stages, rounded_share
from geomix.data.probes import probe_sets
from geomix.data.provenance import content_hash, describe
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.util.errors import UserError

MIX = {"source": "random-words", "ratio": 2, "words": 5}


def plan(own: int, mixed: int, replayed: int = 0, *, free: bool = False) -> StagePlan:
    def named(letter: str, count: int, *, trained: bool = True) -> SourceSet:
        examples = [Example(f"{letter}{i}", "t") for i in range(count)]
        role: Role = "mixed" if letter == "m" else "replayed" if letter == "r" else "own"
        return SourceSet(examples, {"name": letter}, trained, role=role)

    sets = {"D_A": named("a", own)}
    if mixed:
        sets["D_M"] = named("m", mixed, trained=not free)
    if replayed:
        sets["replay"] = named("r", replayed)
    return StagePlan("D_A", sets)


def config(*stages: dict[str, Any], **keys: Any) -> RunConfig:
    return RunConfig.model_validate({"stages": list(stages), **keys})


def stage(source: str = "kvr", limit: int = 12, **keys: Any) -> dict[str, Any]:
    return {"data": {"source": source, "limit": limit}, **keys}


def mixed_examples(mix: MixConfig | None, own: int, seed: int, index: int) -> list[Example]:
    found = mixed_sets(config(stage(), seed=seed), ("stages", 0, "mix"), mix, own, index)
    return [example for part in found.values() for example in part.examples]


RATIOS = [(0.0, 0, 1), (0.1, 1, 10), (0.5, 1, 2), (1.0, 1, 1), (2.0, 2, 1), (4.0, 4, 1)]


@pytest.mark.parametrize(
    ("ratio", "above", "below"), [*RATIOS, (0.01, 1, 100), (0.05, 1, 20), (0.29, 29, 100)]
)
def test_a_share_is_rounded_half_up_at_every_size(ratio: float, above: int, below: int) -> None:
    """Whole numbers alone, the ratio written by hand as above / below: no fraction, no float."""
    for own in range(1, 5_001):
        assert rounded_share(ratio, own) == (2 * above * own + below) // (2 * below)


@pytest.mark.parametrize(("ratio", "above", "below"), RATIOS)
def test_the_mix_is_exactly_the_ratio_rounded_half_up(ratio: float, above: int, below: int) -> None:
    mix = MixConfig(source="random-words", ratio=ratio, words=5)
    for own in (1, 2, 3, 4, 5, 7, 10, 15, 25, 33, 100, 105, 250):
        expected = (2 * above * own + below) // (2 * below)
        if expected == 0 and ratio > 0:
            with pytest.raises(UserError, match="is none; give a larger ratio"):
                mixed_examples(mix, own, 0, 0)
        else:
            found = mixed_examples(mix, own, 0, 0)
            assert len(found) == expected
            assert len({example.target for example in found}) == expected
            assert all(len(example.target.split()) == 5 for example in found)


def test_no_mix_is_none() -> None:
    assert mixed_examples(None, 10, 0, 0) == []


def test_a_ratio_of_0_trains_as_no_mix_does() -> None:
    plain, zero = (plan_stages(config(stage(mix=mix)))[0] for mix in (None, {**MIX, "ratio": 0}))
    assert zero.own == plain.own
    assert zero.mixed == []
    assert zero.batches(3, 0, 1, 5) == plain.batches(3, 0, 1, 5)


@pytest.mark.parametrize("count", [7, 8, 14, 20, 21, 50])
def test_a_short_source_is_repeated_to_the_exact_number_where_that_is_allowed(
    tmp_path: Path, count: int
) -> None:
    """Seven facts, in their order, whole rounds first: the i-th is the fact i modulo 7."""
    file = tmp_path / "facts.jsonl"
    facts = [{"prompt": f"p{n}", "target": f"t{n}"} for n in range(7)]
    file.write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    source = {"source": str(file), "allow_repeat": True}
    own = plan_stages(config({"data": {**source, "limit": count}}))[0].own
    mixed = plan_stages(config(stage(limit=count, mix={**source, "ratio": 1})))[0].mixed
    for found in (own, mixed):
        assert [e.target for e in found] == [f"t{i % 7}" for i in range(count)]
    if count > 7:
        for key, says in (
            ({"data": {"source": str(file), "limit": count}}, "set limit: 7, or allow_repeat: t"),
            (stage(limit=count, mix={"source": str(file), "ratio": 1}), "set a smaller ratio, or "),
        ):
            with pytest.raises(UserError, match=f"7 examples found, {count} asked for; {says}"):
                plan_stages(config(key))


def test_nothing_cannot_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    file.write_text("", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"none\.jsonl: 0 examples found .it holds no rows., 3 asked for$"
    ):
        plan_stages(config({"data": {"source": str(file), "limit": 3, "allow_repeat": True}}))


def test_a_short_finite_source_is_repeated_or_says_its_shares(tmp_path: Path) -> None:
    copy = tmp_path / "train.jsonl"
    rows = [{"question": f"q{n}", "answer": f"#### {n}"} for n in range(40)]
    copy.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = {"source": "gsm8k", "path": str(copy), "split": "id", "limit": 50}
    own = plan_stages(config({"data": {**data, "allow_repeat": True}}))[0].own
    n = len(set(own))
    assert len(own) == 50 > n > 4
    assert own == (own[:n] * 50)[:50]
    says = (
        rf": {n} examples found in split 'id' of 40 in all \(train 60 %, .*set limit: {n}, or all"
    )
    with pytest.raises(UserError, match=says):
        plan_stages(config({"data": data}))


def test_held_out_rows_may_be_fewer_but_not_as_a_stage(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    facts = [{"prompt": f"p{n}", "target": f"t{n}"} for n in range(7)]
    file.write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    run = config({"data": {"source": str(file), "limit": 5}})
    assert [e.target for e in probe_sets(run, plan_stages(run))["held-out"]] == ["t5", "t6"]
    left_over = {"source": str(file), "limit": 5, "split": "held-out"}
    with pytest.raises(UserError, match=r"2 examples found in split 'held-out' \(.*\), 5 asked"):
        plan_stages(config({"data": left_over}))


def test_stages_and_seeds_mix_different_passages() -> None:
    mix = MixConfig.model_validate(MIX)
    drawn = [{e.target for e in mixed_examples(mix, 10, *at)} for at in ((0, 0), (0, 1), (1, 0))]
    assert len(set().union(*drawn)) == 60
    fixed = MixConfig.model_validate({**MIX, "seed": 0})
    assert mixed_examples(fixed, 10, 5, 0) == mixed_examples(mix, 10, 0, 0)


@pytest.mark.parametrize(
    ("own", "mixed", "replayed", "size"),
    [(12, 24, 0, 8), (10, 0, 0, 4), (5, 2, 0, 32), (7, 14, 0, 1), (12, 24, 5, 8), (9, 0, 2, 4)],
)
def test_every_epoch_is_a_permutation_in_full_batches_and_one_rest(
    own: int, mixed: int, replayed: int, size: int
) -> None:
    made = plan(own, mixed, replayed)
    for epoch in range(3):
        batches = made.batches(0, 0, epoch, size)
        assert sorted(chain(*batches)) == list(range(own + mixed + replayed))
        assert all(len(batch) == size for batch in batches[:-1])
        assert 0 < len(batches[-1]) <= size
        assert len(batches) == math.ceil((own + mixed + replayed) / size)
    assert made.steps(3, size) == 3 * math.ceil((own + mixed + replayed) / size)


def test_the_order_is_the_one_that_is_written_down() -> None:
    """Once for ever: the same data in the same order is what makes two runs comparable."""
    assert plan(3, 4).batches(0, 0, 0, 4) == [[2, 4, 3, 6], [5, 0, 1]]
    for own, mixed, free in ((5, 6, False), (5, 6, True), (9, 0, False)):
        for place in ((0, 0, 0), (3, 1, 2)):
            order = np.random.default_rng(place).permutation(own + mixed).tolist()
            whole = [order[i : i + 4] for i in range(0, len(order), 4)]
            expected = [[i for i in b if i < own or not free] for b in whole]
            assert plan(own, mixed, free=free).batches(*place, 4) == expected


def test_a_batch_is_told_apart_into_sets() -> None:
    made = plan(2, 3, 2)
    assert made.by_set([6, 0, 4, 5, 2]) == {"D_A": [0], "D_M": [2, 0], "replay": [1, 0]}
    texts = [e for part in made.sets.values() for e in part.examples]
    for batch in made.batches(1, 1, 0, 3):
        found = [made.sets[n].examples[i] for n, at in made.by_set(batch).items() for i in at]
        assert sorted(e.prompt for e in found) == sorted(texts[i].prompt for i in batch)


def test_the_order_is_a_function_of_seed_stage_and_epoch() -> None:
    made = plan(30, 60)
    places = [(seed, index, epoch) for seed in (0, 1) for index in (0, 1) for epoch in (0, 1, 2)]
    orders = {tuple(chain(*made.batches(*place, 8))) for place in places}
    assert len(orders) == len(places)
    assert plan(30, 60).batches(1, 0, 2, 8) == made.batches(1, 0, 2, 8)


def test_the_control_is_the_mix_with_the_passages_left_out() -> None:
    mixed, control = plan(10, 20, 3), plan(10, 20, 3, free=True)
    assert control.steps(5, 4) == mixed.steps(5, 4) == 45
    empty = 0
    for epoch in range(5):
        pairs = zip(mixed.batches(3, 1, epoch, 4), control.batches(3, 1, epoch, 4), strict=True)
        for whole, left in pairs:
            assert left == [i for i in whole if i < 10 or i >= 30]
            empty += not left
        kept = [*range(10), *range(30, 33)]
        assert sorted(chain(*control.batches(3, 1, epoch, 4))) == kept
    assert empty, "by chance some batch holds passages only; it stays a step"


def tokenised(examples: list[Example], targets: list[int]) -> list[TokenisedExample]:
    return [
        TokenisedExample((1,) * (n + 1), (IGNORED,) + (1,) * n, e)
        for e, n in zip(examples, targets, strict=True)
    ]


def test_weights_in_data_json_by_hand() -> None:
    """Own: 2 examples, 3 + 1 tokens; mixed: 3, 4 + 4 + 8. So 4/20 of tokens, 2/5 of examples."""
    made = plan(2, 3)
    own, mixed = tokenised(made.own, [3, 1]), tokenised(made.mixed, [4, 4, 8])
    sets = describe(made, {"D_A": own, "D_M": mixed})["sets"]
    assert sets["D_A"]["effective_weight"] == pytest.approx({"token": 0.2, "example": 0.4})
    assert sets["D_M"]["effective_weight"] == pytest.approx({"token": 0.8, "example": 0.6})
    counts = [(s["examples"], s["target_tokens"], s["trained"]) for s in sets.values()]
    assert counts == [(2, 4, True), (3, 16, True)]
    control = describe(plan(2, 3, free=True), {"D_A": own, "D_M": mixed})["sets"]
    assert control["D_A"]["effective_weight"] == {"token": 1, "example": 1}
    assert control["D_M"]["effective_weight"] == {"token": 0, "example": 0}
    assert [s["trained"] for s in control.values()] == [True, False]
    assert list(describe(plan(2, 0), {"D_A": own})["sets"]) == ["D_A"]


def test_weights_of_replayed_examples_by_hand() -> None:
    """2 own of 3 + 1 tokens, 3 of D_M with 16, 1 replayed with 5: all of 25 tokens, 6 examples."""
    examples = {
        name: tokenised(part.examples, targets)
        for (name, part), targets in zip(
            plan(2, 3, 1).sets.items(), ([3, 1], [4, 4, 8], [5]), strict=True
        )
    }

    def weights(reduction: str, *, free: bool) -> dict[str, float]:
        sets = describe(plan(2, 3, 1, free=free), examples)["sets"]
        return {name: known["effective_weight"][reduction] for name, known in sets.items()}

    fractions = {"D_A": 4 / 25, "D_M": 16 / 25, "replay": 5 / 25}
    assert weights("token", free=False) == pytest.approx(fractions)
    fractions = {"D_A": 2 / 6, "D_M": 3 / 6, "replay": 1 / 6}
    assert weights("example", free=False) == pytest.approx(fractions)
    assert weights("token", free=True) == pytest.approx({"D_A": 4 / 9, "D_M": 0, "replay": 5 / 9})
    assert weights("example", free=True) == pytest.approx({"D_A": 2 / 3, "D_M": 0, "replay": 1 / 3})


def test_data_json_says_where_each_set_is_from(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    facts = [{"prompt": f"p{n}", "target": f"t{n}"} for n in range(3)]
    file.write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    own = {"source": str(file), "limit": 7, "allow_repeat": True}
    run = config({"data": own}, stage("triples", 4, mix=MIX, replay=0.5), seed=11)
    first, second = (
        describe(p, {n: tokenised(s.examples, [1] * len(s.examples)) for n, s in p.sets.items()})
        for p in plan_stages(run)
    )
    known = first["sets"]["D_A"]
    assert (known["examples"], known["distinct"]) == (7, 3)
    assert known["source"] == {
        "name": str(file),
        "path": None,
        "subset": None,
        "split": "train",
        "seed": None,
        "columns": None,
        "template": None,
    }
    sources = {name: known["source"] for name, known in second["sets"].items()}
    alone = {"path": None, "subset": None, "split": "train"}
    assert sources["D_B"] == {"name": "triples", "seed": 11, **alone}
    drawn = sources["D_M"].pop("seed")
    assert sources["D_M"] == {
        "name": "random-words",
        **alone,
        "words": 5,
        "vocabulary": "generated",
        "ratio": 2,
    }
    again = examples_of("random-words", Request(8, drawn, words=5))
    assert content_hash(again) == second["sets"]["D_M"]["sha256"], "the seed that was used"
    assert sources["replay"] == {"name": "replay", "ratio": 0.5, "seed": 11, "examples": {"D_A": 4}}
    assert [known["distinct"] for known in second["sets"].values()] == [4, 8, 3]
    assert json.loads(json.dumps(second)) == second


def test_the_hash_tells_prompts_targets_and_order_apart() -> None:
    one, other = Example("a", "b"), Example("c", "d")
    lists = [[one, other], [other, one], [one], [Example("ab", "")], [Example("", "ab")]]
    assert len({content_hash(examples) for examples in lists}) == len(lists)


def test_plans_follow_the_configuration() -> None:
    made = plan_stages(config(stage(mix=MIX), stage("arithmetic", 5), seed=3))
    assert [(p.name, len(p.own), len(p.mixed)) for p in made] == [("D_A", 12, 24), ("D_B", 5, 0)]
    assert plan_stages(config(stage(), seed=3))[0].own == made[0].own
    assert plan_stages(config(stage(), seed=4))[0].own != made[0].own
    fixed = {"data": {"source": "kvr", "limit": 12, "seed": 3}}
    assert plan_stages(config(fixed, seed=4))[0].own == made[0].own


def test_set_names_skip_the_m() -> None:
    names = [set_name(i) for i in range(25)]
    assert names[:2] == ["D_A", "D_B"]
    assert len(set(names)) == 25
    assert "D_M" not in names
    with pytest.raises(UserError, match="stages"):
        set_name(25)


def test_arms_share_their_probe_sets() -> None:
    """Plain, mixed and control: cosines of different arms are of the same examples."""
    record = {"mix": MIX}
    arms = [
        config(stage(mix=mix), stage("arithmetic", 5), record=record, seed=2)
        for mix in (None, MIX, {**MIX, "passage_free": True})
    ]
    plain, mixed, control = (probe_sets(arm, plan_stages(arm)) for arm in arms)
    assert plain == mixed == control
    assert {name: len(examples) for name, examples in plain.items()} == {
        "D_A": 12,
        "D_B": 5,
        "D_M": 24,
        "held-out": 12,
    }
    texts = [{e.prompt for e in examples} for examples in plain.values()]
    assert len(set().union(*texts)) == 12 + 5 + 24 + 12, "no example is in two sets"


def test_probe_sets_without_a_mix_or_a_record() -> None:
    for keys in ({}, {"record": None}):
        alone = config(stage(), **keys)
        assert list(probe_sets(alone, plan_stages(alone))) == ["D_A", "held-out"]


def test_a_local_copy_fills_both_stages_and_the_held_out_set(tmp_path: Path) -> None:
    """Facts of the first stage, unseen ones of the second and held-out ones share no prompt."""
    copy = tmp_path / "train.jsonl"
    rows = [{"question": f"q{n}", "answer": f"#### {n}"} for n in range(400)]
    copy.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    text = tmp_path / "text.csv"
    passages = (f"{' '.join(f'w{n}' for n in range(start, start + 10))},x" for start in range(90))
    text.write_text("\n".join(["text,x", *passages]), encoding="utf-8")
    local = {"source": "gsm8k", "path": str(copy)}
    columns = {"prompt": "text", "target": "x"}
    mix = {"source": str(text), "columns": columns, "template": "{text}!", "ratio": 0.5}
    run = config(
        {"data": {**local, "limit": 120}, "mix": mix},
        {"data": {**local, "limit": 60, "split": "id", "seed": 7}},
    )
    plans = plan_stages(run)
    assert [(len(plan.own), len(plan.mixed)) for plan in plans] == [(120, 60), (60, 0)]
    assert plans[0].mixed[0] == Example("w0 w1 w2 w3 w4 w5 w6 w7 w8 w9!", "x")
    sets = probe_sets(run, plans)
    assert list(sets) == ["D_A", "D_B", "D_M", "held-out"]
    assert 20 < len(sets["held-out"]) < 60
    prompts = [example.prompt for examples in sets.values() for example in examples]
    assert len(set(prompts)) == len(prompts)


def test_the_hash_sees_earlier_exchanges_but_not_other_answers() -> None:
    """Only what is trained on counts."""
    alone = content_hash([Example("a", "b")])
    assert content_hash([Example("a", "b", aliases=("b", "c"))]) == alone
    assert content_hash([Example("a", "b", earlier=(("x", "y"),))]) != alone
