"""The invented factoid world."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import cast

import pytest

from geomix.data.example import Example
from geomix.data.sources import triples
from geomix.data.sources.base import Request
from geomix.data.sources.select import examples_of
from geomix.data.split import SPLITS, Split, split_of
from geomix.util.errors import UserError


def test_an_example_is_a_question_in_the_format_of_the_paper() -> None:
    for example in triples.examples(50, 0, "train"):
        assert example.prompt.startswith("Question: ")
        assert example.prompt.endswith("? The answer is:")
        assert example.target == example.target.strip()
        assert 1 <= len(example.target.split(" ")) <= 3


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_holds_20_000_facts_with_distinct_prompts(split: Split) -> None:
    prompts = {example.prompt for example in triples.examples(20_000, 0, split)}
    assert len(prompts) == 20_000


def test_no_question_is_in_two_splits() -> None:
    asked = [{e.prompt for e in triples.examples(5_000, 0, split)} for split in SPLITS]
    assert not any(one & other for one, other in combinations(asked, 2))


def test_a_fact_is_in_the_split_of_its_subject_and_relation() -> None:
    wanted = [
        triples.PROMPT.format(question=relation.question.format(subject=subject))
        for (relation, subject, _), _ in zip(triples.facts(5), range(300), strict=False)
        if split_of(subject + relation.name) == "id"
    ]
    assert 50 < len(wanted) < 150
    found = triples.examples(len(wanted), 5, "id")
    assert [e.prompt for e in found] == wanted
    assert all(split_of(e.subject + name) == "id" for e in found for name in _asking(e))


def _asking(example: Example) -> list[str]:
    """The relation whose question about the example's subject is its prompt."""
    asked = {r.name: triples.PROMPT.format(question=r.question) for r in triples.RELATIONS}
    named = [n for n, q in asked.items() if q.format(subject=example.subject) == example.prompt]
    assert len(named) == 1
    return named


def test_a_world_is_a_function_of_its_seed() -> None:
    assert triples.examples(30, 4, "train")[:10] == triples.examples(10, 4, "train")


def test_another_seed_gives_other_facts() -> None:
    """Questions that two worlds share must not have the same answers but by chance, 1 in 64."""
    one = {e.prompt: e.target for e in triples.examples(20_000, 0, "train")}
    other = {e.prompt: e.target for e in triples.examples(20_000, 1, "train")}
    shared = one.keys() & other.keys()
    assert len(shared) > 100
    assert sum(one[p] == other[p] for p in shared) < 0.1 * len(shared)


def test_relations_are_equally_frequent_and_each_has_objects_of_its_own() -> None:
    drawn = [fact for fact, _ in zip(triples.facts(2), range(8_000), strict=False)]
    counts = Counter(relation.name for relation, _, _ in drawn)
    assert len(counts) == len(triples.RELATIONS) == 8
    assert all(850 < count < 1_150 for count in counts.values())
    named = {relation.name: set(triples.objects(relation)) for relation in triples.RELATIONS}
    assert all(len(names) == triples.OBJECTS for names in named.values())
    assert not any(a & b for a, b in combinations(named.values(), 2))
    assert all(answer in named[relation.name] for relation, _, answer in drawn)


def test_some_objects_are_two_words() -> None:
    for relation in triples.RELATIONS:
        long = sum(" " in name for name in triples.objects(relation))
        assert 4 < long < 40 or relation.name == "author"


def test_the_subject_does_not_tell_the_object() -> None:
    """Among places with the same first letter the commonest capital is no commoner than by chance.

    Five standard deviations of a Poisson count, over 64 answers and 15 letters.
    """
    answers: dict[str, Counter[str]] = {}
    for relation, subject, answer in triples.facts(3):
        if relation.name == "capital":
            answers.setdefault(subject[0], Counter())[answer] += 1
    for counts in answers.values():
        total = counts.total()
        assert counts.most_common(1)[0][1] < total / 64 + 5 * (total / 64) ** 0.5


def test_the_splits_hold_the_whole_world_and_no_more() -> None:
    counts = [len(triples.examples(triples.WORLD, 0, split)) for split in SPLITS]
    assert sum(counts) == triples.WORLD
    request = Request(triples.WORLD, 0, "id")
    with pytest.raises(UserError, match=f": {counts[1]} examples found in that split of the world"):
        examples_of("triples", request)


def test_bad_input_is_refused() -> None:
    assert triples.examples(0, 0, "id") == []
    with pytest.raises(ValueError, match="not -1"):
        triples.examples(-1, 0, "id")
    with pytest.raises(ValueError, match="choose one of train, id, held-out"):
        triples.examples(1, 0, cast("Split", "test"))
